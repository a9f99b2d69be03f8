"""What several families of rules use: see each module; and the papers that several of them cite, for specs.

A helper of one family is in its package.
"""

NMNC = "Kang, Richards, Sabatini 2026, arXiv:2601.02636"
MIRROR = "Akrout, Wilson, Humphreys, Lillicrap, Tweed 2019, Deep learning without weight transport, arXiv:1904.05391"
