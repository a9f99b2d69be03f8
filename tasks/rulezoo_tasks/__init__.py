"""The built-in tasks: a catalogue that imports nothing heavy."""

from __future__ import annotations

from rulezoo import TaskSpec, hookimpl

_DIGITS = (
    "Alpaydin & Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, "
    "https://doi.org/10.24432/C50P49; the 1,797 images that scikit-learn brings"
)
_MNIST = "LeCun, Bottou, Bengio & Haffner 1998, https://doi.org/10.1109/5.726791"
_FASHION = "Xiao, Rasul & Vollgraf 2017, https://arxiv.org/abs/1708.07747"
_CIFAR = "Krizhevsky 2009, https://www.cs.toronto.edu/~kriz/learning-features-2009-TR.pdf"
_HE = "He, Zhang, Ren & Sun 2016, https://arxiv.org/abs/1512.03385"
_AKROUT = "Akrout, Wilson, Humphreys, Lillicrap & Tweed 2019, https://arxiv.org/abs/1904.05391"
_BIOTORCH = "Sanfiz & Akrout 2021 (BioTorch), https://arxiv.org/abs/2108.13446"
_SAFAAI = "Safaai, Reddy & Sabatini 2026, https://github.com/KempnerInstitute/conditioned-dfa"
_FRENKEL = "Frenkel, Lefebvre & Bol 2021, https://doi.org/10.3389/fnins.2021.629892"
_PEPITA = "Dellaferrera & Kreiman 2022, https://arxiv.org/abs/2201.11665"
_JPC = "examples of jpc, https://github.com/thebuckleylab/jpc"
_TINY = "Le & Yang 2015, Tiny ImageNet, http://cs231n.stanford.edu/tiny-imagenet-200.zip"
_FLIP_FLOP = "Sussillo & Barak 2013, https://doi.org/10.1162/NECO_a_00409"

_ADDING = (
    "Pitis 2016, https://r2rt.com/recurrent-neural-networks-in-tensorflow-i.html; Marschall, Cho & Savin 2020, "
    "https://jmlr.org/papers/v21/19-562.html"
)
_DELAYED_MATCH = "the non-match task of Miconi 2017, https://doi.org/10.7554/eLife.20899, its times in steps"
_RECALL = "the store-and-recall task of Bellec et al. 2018, https://arxiv.org/abs/1803.09574, with one cue in a trial"

_NEUROGYM = (
    "Molano-Mazón et al. 2022, NeuroGym, https://doi.org/10.31234/osf.io/aqc9n; "
    "environments: https://neurogym.github.io/neurogym"
)


@hookimpl
def rulezoo_tasks() -> list[TaskSpec]:
    """The tasks; the two on digits are the default of a comparison, because nothing is downloaded."""
    return [
        TaskSpec(
            name="digits-cnn",
            target="rulezoo_tasks.digits:DigitsCNN",
            summary="Handwritten digits of 8×8 pixels, seen at once by two convolutions and a dense layer.",
            tags=("cnn", "vision", "default"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="digits-mlp",
            target="rulezoo_tasks.digits_mlp:DigitsMLP",
            summary="The same digits, seen at once by two dense hidden layers.",
            tags=("mlp", "vision"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="digits-rnn",
            target="rulezoo_tasks.digits:DigitsRNN",
            summary="The same digits, read row by row by a leaky recurrent network that answers at the end.",
            tags=("rnn", "vision", "default"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="flip-flop-rnn",
            target="rulezoo_tasks.flip_flop:FlipFlopRNN",
            summary="Hold the sign of the last pulse on each of three channels, at every step.",
            tags=("rnn", "memory"),
            reference=_FLIP_FLOP,
            embedded=True,
        ),
        TaskSpec(
            name="adding-rnn",
            target="rulezoo_tasks.adding:AddingRNN",
            summary="Report at every step a weighted sum of the coin flips two and five steps ago.",
            tags=("rnn", "memory"),
            reference=_ADDING,
            embedded=True,
        ),
        TaskSpec(
            name="delayed-match-rnn",
            target="rulezoo_tasks.delayed_match:DelayedMatchRNN",
            summary="Say at the end whether two stimuli, with a delay between them, were the same.",
            tags=("rnn", "memory"),
            reference=_DELAYED_MATCH,
            embedded=True,
        ),
        TaskSpec(
            name="digits-snn",
            target="rulezoo_tasks.spiking:DigitsSNN",
            summary="The same digits as spikes, by rate or by latency, seen by two layers of spiking neurons.",
            tags=("snn", "vision"),
            reference=_DIGITS,
            embedded=True,
        ),
        TaskSpec(
            name="recall-snn",
            target="rulezoo_tasks.spiking:RecallSNN",
            summary="Recall which of four cues was shown before a delay, by recurrent spiking neurons that adapt.",
            tags=("snn", "memory"),
            reference=_RECALL,
            embedded=True,
        ),
        TaskSpec(
            name="neurogym",
            target="rulezoo_tasks.neurogym_envs:Neurogym",
            summary="A task of cognitive neuroscience: any environment of neurogym that names the right action at each step.",
            tags=("rnn", "neuroscience"),
            reference=_NEUROGYM,
            embedded=True,
            requires="rulezoo[neurogym]",
            selects="env",
            example="PerceptualDecisionMaking-v0",
        ),
        TaskSpec(
            name="mnist-mlp",
            target="rulezoo_tasks.vision:MNISTMLP",
            summary="Handwritten digits of 28×28 pixels, two dense hidden layers.",
            tags=("mlp", "vision"),
            reference=_MNIST,
        ),
        TaskSpec(
            name="mnist-sigmoid-mlp",
            target="rulezoo_tasks.sigmoid_mlp:MNISTSigmoidMLP",
            summary="MNIST, one hidden layer of 500 sigmoid units, in the setting of the weight mirror's public code.",
            tags=("mlp", "vision"),
            reference=f"{_AKROUT}; {_MNIST}",
        ),
        TaskSpec(
            name="cifar10-sigmoid-mlp",
            target="rulezoo_tasks.sigmoid_mlp:CIFAR10SigmoidMLP",
            summary="CIFAR-10, one hidden layer of 1,000 sigmoid units, in the setting of the weight mirror's public code.",
            tags=("mlp", "vision"),
            reference=f"{_AKROUT}; {_CIFAR}",
        ),
        TaskSpec(
            name="mnist-relu-mlp",
            target="rulezoo_tasks.conditioned_feedback:MNISTReLUMLP",
            summary="MNIST, two hidden layers of rectified units, 1,000 updates, in the setting of conditioned DFA's public code.",
            tags=("mlp", "vision"),
            reference=f"{_SAFAAI}; {_MNIST}",
        ),
        TaskSpec(
            name="fashion-tanh-mlp",
            target="rulezoo_tasks.conditioned_feedback:FashionTanhMLP",
            summary="Fashion-MNIST, three hidden layers of tanh units, 1,000 updates, in the setting of conditioned DFA's public code.",
            tags=("mlp", "vision"),
            reference=f"{_SAFAAI}; {_FASHION}",
        ),
        TaskSpec(
            name="mnist-tanh-mlp",
            target="rulezoo_tasks.random_targets:MNISTTanhMLP",
            summary="MNIST, one hidden layer of 500 tanh units, in the setting of DRTP's public code.",
            tags=("mlp", "vision"),
            reference=f"{_FRENKEL}; {_MNIST}",
        ),
        TaskSpec(
            name="cifar10-tanh-mlp",
            target="rulezoo_tasks.random_targets:CIFAR10TanhMLP",
            summary="CIFAR-10, one hidden layer of 500 tanh units, in the setting of DRTP's public code.",
            tags=("mlp", "vision"),
            reference=f"{_FRENKEL}; {_CIFAR}",
        ),
        TaskSpec(
            name="mnist-squared-mlp",
            target="rulezoo_tasks.predicted_layers:MNISTSquaredMLP",
            summary="MNIST, two hidden layers of tanh units, squared error, 500 updates, in the setting of a notebook on predictive coding.",
            tags=("mlp", "vision"),
            reference=f"{_JPC}; {_MNIST}",
        ),
        TaskSpec(
            name="mnist-deep-mlp",
            target="rulezoo_tasks.predicted_layers:MNISTDeepMLP",
            summary="MNIST, nine hidden layers, squared error, 300 updates, in the setting of a notebook on error-based predictive coding.",
            tags=("mlp", "vision"),
            reference=f"{_JPC}; {_MNIST}",
        ),
        TaskSpec(
            name="cifar10-relu-mlp",
            target="rulezoo_tasks.modulated_input:CIFAR10ReLUMLP",
            summary="CIFAR-10, one hidden layer of 1,024 rectified units with dropout, in the setting of PEPITA's public code.",
            tags=("mlp", "vision"),
            reference=f"{_PEPITA}; {_CIFAR}",
        ),
        TaskSpec(
            name="fashion-cnn",
            target="rulezoo_tasks.vision:FashionCNN",
            summary="Pieces of clothing, 28×28 grey pixels, two convolutions and a dense layer.",
            tags=("cnn", "vision"),
            reference=_FASHION,
        ),
        TaskSpec(
            name="fashion-rnn",
            target="rulezoo_tasks.vision:FashionRNN",
            summary="Pieces of clothing, read row by row by a leaky recurrent network that answers at the end.",
            tags=("rnn", "vision"),
            reference=_FASHION,
        ),
        TaskSpec(
            name="cifar10-cnn",
            target="rulezoo_tasks.vision:CIFAR10CNN",
            summary="Small colour photographs in ten classes, three convolutions and a dense layer.",
            tags=("cnn", "vision"),
            reference=_CIFAR,
        ),
        TaskSpec(
            name="cifar10-resnet20",
            target="rulezoo_tasks.cifar:CIFAR10ResNet20",
            summary="CIFAR-10, cropped and mirrored at random, ResNet-20 with batch normalisation, in the setting of He et al. 2016.",
            tags=("cnn", "vision", "augmented"),
            reference=f"{_HE}; {_CIFAR}",
        ),
        TaskSpec(
            name="cifar10-lenet",
            target="rulezoo_tasks.cifar:CIFAR10LeNet",
            summary="CIFAR-10, cropped and mirrored at random, a LeNet in the setting of BioTorch's table.",
            tags=("cnn", "vision", "augmented"),
            reference=f"{_BIOTORCH}; {_CIFAR}",
        ),
        TaskSpec(
            name="cifar100-resnet20",
            target="rulezoo_tasks.cifar:CIFAR100ResNet20",
            summary="CIFAR-100, cropped and mirrored at random, ResNet-20 with batch normalisation, SGD.",
            tags=("cnn", "vision", "augmented"),
            reference=f"{_HE}; {_CIFAR}",
        ),
        TaskSpec(
            name="tiny-imagenet-alexnet",
            target="rulezoo_tasks.imagenet:TinyImageNetAlexNet",
            summary="Tiny-ImageNet, cropped and mirrored at random, AlexNet for 64 pixels with dropout.",
            tags=("cnn", "vision", "augmented"),
            reference=f"Krizhevsky 2014, https://arxiv.org/abs/1404.5997; {_TINY}",
        ),
        TaskSpec(
            name="tiny-imagenet-resnet18",
            target="rulezoo_tasks.imagenet:TinyImageNetResNet18",
            summary="Tiny-ImageNet, cropped and mirrored at random, ResNet-18 with batch normalisation, SGD.",
            tags=("cnn", "vision", "augmented"),
            reference=f"{_HE}; {_TINY}",
        ),
        TaskSpec(
            name="image-folder",
            target="rulezoo_tasks.image_folder:ImageFolder",
            summary="Your own folder of class folders with images, a small network or any of torchvision's.",
            tags=("cnn", "vision", "augmented", "your data"),
            reference="torchvision's networks, https://docs.pytorch.org/vision/stable/models.html",
        ),
        TaskSpec(
            name="imagenet-resnet18",
            target="rulezoo_tasks.imagenet:ImageNetResNet18",
            summary="ImageNet at 224 pixels from its folders, torchvision's ResNet-18 and its recipe.",
            tags=("cnn", "vision", "augmented"),
            reference=f"{_HE}; Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575",
        ),
    ]
