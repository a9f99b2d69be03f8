"""Claims of foreign plugins: one that is broken is named with its reason, and hides no other."""

import textwrap

import pytest
from click.testing import CliRunner

from rulezoo.claims import Arm, Claim, ClaimError, Standing, Study, Tuning
from rulezoo.claims.installed import installed, load
from rulezoo.cli import cli
from rulezoo.discovery.plugins import FILES
from rulezoo.discovery.registry import discover
from rulezoo.errors import PluginError, UnknownName, UserError
from rulezoo.results.store import Store

PLUGIN = """
    from dataclasses import dataclass

    from rulezoo import ClaimSpec, claims, hookimpl

    @dataclass(frozen=True)
    class Learns(claims.Criterion):
        @property
        def verdict_rule(self):
            return "Supported if the score is above 0."

        def judge(self, evidence):
            {judge}

        {more}

    def study(name, profile="quick"):
        arm = claims.Arm("it", "backprop", "digits-cnn", (0, 1), epochs=1)
        return claims.Claim(name, "It learns.", "us", Learns(), {{profile: claims.Study((arm,), "reduced", "a minute")}})

    LEARNS = study("{name}")
    FULL = study("only-full", "full")
    NOTHING = 3

    @hookimpl
    def rulezoo_claims():
        return [
            ClaimSpec("learns", f"{{__name__}}:LEARNS", "It learns."),
            ClaimSpec("no-claim", f"{{__name__}}:NOTHING", "It is a number."),
            ClaimSpec("nowhere", "no_such_module_anywhere:X", "It is missing."),
            ClaimSpec("only-full", f"{{__name__}}:FULL", "It learns, on a GPU."),
        ]
"""
GOOD = "return claims.conclude([claims.above('score', claims.over_seeds(evidence.of('it'), claims.score), 0, kind='score')])"


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A plugin file with a claim that is judged so, and three that are broken or lack a quick profile."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(FILES, "")

    def write(judge=GOOD, name="learns", more=""):
        path = tmp_path / "my_claims.py"
        path.write_text(textwrap.dedent(PLUGIN.format(judge=judge, name=name, more=more)), encoding="utf-8")
        monkeypatch.setenv(FILES, str(path))
        return path

    return write


@pytest.fixture
def complete(record, tmp_path):
    """Stores both runs of the claim."""

    def store():
        for seed in (0, 1):
            one = Arm("it", "backprop", "digits-cnn", (0, 1), epochs=1)
            Store(tmp_path / "out" / "learns" / "quick").put(record(one, seed, test=0.9 + seed / 100))

    return store


def run(*words):
    return CliRunner().invoke(cli, ["claims", *words, "--out", "out"])


def test_a_foreign_claim_is_listed_shown_and_judged_like_a_built_in_one(plugin, complete):
    plugin()
    complete()
    listed = run("list")
    assert listed.exit_code == 0
    assert "supported (score 1 of 1)" in next(
        line for line in listed.stdout.splitlines() if line.startswith("learns ")
    )
    shown = run("show", "learns")
    assert shown.exit_code == 0
    for part in ("Claim: It learns.", "Verdict rule: Supported if", "2 runs; a minute", "State: supported"):
        assert part in shown.stdout
    assert run("report").exit_code == 0
    page = (plugin().parent / "out" / "README.md").read_text()
    assert "**Verdict (quick profile): supported (score 1 of 1)**" in page
    assert not list((plugin().parent / "out").glob("learns*.svg"))  # its criterion has no figure


def test_a_foreign_claim_is_on_the_report_of_the_leaderboard(plugin, complete, tmp_path):
    plugin()
    complete()
    words = ["leaderboard", "--out", "out/learns/quick", "--claims", "out", "--html", "html"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.output
    assert "supported (score 1 of 1)" in (tmp_path / "html" / "claims.html").read_text()
    assert "claim 'nowhere' of my_claims.py" in done.stderr


def test_broken_claims_are_named_and_hide_no_other(plugin):
    plugin()
    claims, broken = installed(discover())
    assert {"alignment", "learns", "only-full"} <= {claim.name for claim in claims}
    assert {one.name for one in broken} == {"no-claim", "nowhere"}
    listed = run("list")
    assert listed.exit_code == 0
    assert "alignment" in listed.stdout
    lines = {line.split()[0]: line for line in listed.stdout.splitlines() if line.strip()}
    assert "cannot be loaded: claim 'no-claim' of my_claims.py" in lines["no-claim"]
    assert "must be a rulezoo.claims.Claim, not a int" in lines["no-claim"]
    assert "No module named 'no_such_module_anywhere'" in lines["nowhere"]
    reported = run("report")
    assert reported.exit_code == 0
    assert "rulezoo: left out: claim 'nowhere' of my_claims.py" in reported.stderr


@pytest.mark.parametrize(
    ("judge", "reason"),
    [
        ("return 1 / 0", "claim 'learns' cannot be judged: ZeroDivisionError: division by zero"),
        ("return True", "claim 'learns' cannot be judged: TypeError: judge() must return a Verdict, got a bool"),
        ("raise SystemExit(3)", "claim 'learns' cannot be judged: SystemExit: 3"),
    ],
)  # fmt: skip
def test_a_criterion_that_fails_is_named_and_the_others_are_written(plugin, complete, judge, reason):
    path = plugin(judge)
    complete()
    listed = run("list")
    assert listed.exit_code == 0
    assert f"rulezoo: quick profile: {reason}" in listed.stderr
    assert run("report").exit_code == 0
    page = (path.parent / "out" / "README.md").read_text()
    assert "### learns, quick profile: cannot be judged" in page
    assert reason in page
    assert "### alignment, quick profile: not run" in page


def test_a_figure_that_cannot_be_drawn_is_named_and_the_verdict_stays(plugin, complete):
    path = plugin(
        more="def chart(self, evidence):\n            return claims.Chart((), 'x', None, 'a figure')"
    )
    complete()
    done = run("report")
    assert done.exit_code == 0
    assert "the figure of claim 'learns' cannot be drawn" in done.stderr
    page = (path.parent / "out" / "README.md").read_text()
    assert "**Verdict (quick profile): supported (score 1 of 1)**" in page
    assert "the figure of claim 'learns' cannot be drawn" in page


def test_a_claim_by_another_name_than_its_spec_is_refused(plugin):
    plugin(name="knows")
    with pytest.raises(ClaimError, match=r"must have the same name, but the Claim's is 'knows'"):
        load(discover(), "learns")


def test_near_names_are_offered(plugin):
    plugin()
    with pytest.raises(
        UnknownName, match=r"unknown claim 'learn'; did you mean 'learns'\? \(rulezoo list claims\)"
    ):
        load(discover(), "learn")
    with pytest.raises(PluginError, match="no_such_module_anywhere"):
        load(discover(), "nowhere")


def test_a_profile_that_a_claim_lacks_is_an_error_that_names_those_there_are(plugin):
    plugin()
    done = run("run", "learns", "--profile", "standard")
    assert done.exit_code == 2
    assert done.exception.args == (2,) or isinstance(done.exception, UserError)
    with pytest.raises(
        UserError,
        match=r"claim 'learns' has no standard profile, only quick: rulezoo claims run learns --profile quick",
    ):
        load(discover(), "learns").study("standard")


def test_profiles_go_from_the_smallest_to_the_largest():
    study = Study((Arm("it", "backprop", "digits-cnn", (0,)),), "s", "t")
    claim = Claim(
        "c", "s", "us", Standing("it", (), "it"), {"full": study, "standard": study, "quick": study}
    )
    assert claim.profiles == ("quick", "standard", "full")


ARM = Arm("it", "backprop", "digits-cnn", (0,))
STUDY = Study((ARM,), "s", "t")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Arm("it", "backprop", "digits-cnn", ()), "arm 'it': seeds must be whole numbers"),
        (lambda: Arm("it", "backprop", "digits-cnn", (0.5,)), "arm 'it': seeds must be whole numbers"),
        (lambda: Study((), "s", "t"), "at least one arm"),
        (lambda: Study((Arm("it", "backprop", "digits-cnn", (0,), tuned="it"),), "s", "t"), "has no such tuning; its tunings are none"),
        (lambda: Study((ARM,), "s", "t", (Tuning("it", ARM, "lr", ("1", "2")),)), "uses seeds 0, on which the claim is judged"),
        (lambda: Tuning("it", ARM, "lr", "1e-3"), "values must be a tuple of texts"),
        (lambda: Claim("My Claim", "s", "us", Standing("it", (), "it"), {"quick": STUDY}), "lower-case words"),
        (lambda: Claim("c", "s", "us", Standing("it", (), "it"), {}), "has no study"),
        (lambda: Claim("c", "s", "us", Standing("it", (), "it"), {"big": STUDY}), "profile 'big' must be one of quick, standard, full"),
        (lambda: Claim("c", "s", "us", Standing("it", (), "it"), {"quick": ARM}), "must be a Study, got a Arm"),
        (lambda: Claim("c", "s", "us", Standing, {"quick": STUDY}), "an object with a method judge"),
        (lambda: Claim("c", "s", "us", None, {"quick": STUDY}), "an object with a method judge"),
    ],
)  # fmt: skip
def test_a_claim_whose_parts_do_not_fit_together_is_refused(make, reason):
    with pytest.raises(ClaimError, match=reason):
        make()


PACKS = """
    from dataclasses import dataclass

    from rulezoo import ClaimSpec, TaskSpec, claims, hookimpl
    from rulezoo.testing import TinyTask

    @dataclass(frozen=True)
    class Packs(TinyTask):
        def data(self, root=None, *, download=False):
            from rulezoo.datasets.progress import report
            report("packing images: 5 of 10 images")
            return super().data()

    ARMS = tuple(claims.Arm(rule, rule, "packs", (0, 1), epochs=1) for rule in ("backprop", "frozen"))
    STUDY = claims.Study(ARMS, "reduced", "seconds")
    STANDARD = claims.Claim("learns", "It learns.", "us", claims.Standing("backprop", ("frozen",), "backprop"), {"standard": STUDY})

    @hookimpl
    def rulezoo_tasks():
        return [TaskSpec("packs", f"{__name__}:Packs", "It packs.", embedded=True)]

    @hookimpl
    def rulezoo_claims():
        return [ClaimSpec("learns", f"{__name__}:STANDARD", "It learns.")]
"""


@pytest.mark.slow
def test_a_run_reports_the_packing_of_images_and_takes_the_smallest_profile(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "packs.py").write_text(textwrap.dedent(PACKS), encoding="utf-8")
    monkeypatch.setenv(FILES, str(tmp_path / "packs.py"))
    done = run("run", "learns")
    assert done.exit_code == 0, done.output
    assert "rulezoo: packing images: 5 of 10 images\n" in done.stderr
    assert "rulezoo: learns, standard profile: reduced; seconds" in done.stderr
    assert "Verdict (standard profile): " in done.stdout
    assert len(list((tmp_path / "out" / "learns" / "standard" / "runs").rglob("*.json"))) == 4
