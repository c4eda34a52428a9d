"""The page over all studies: every published value counted once, built or not; contradictions; what lacks here."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from made_runs import make_params, make_study, published, right_for, write_missing, write_run, write_study, write_usual

from segkd import plan
from segkd.config.params import Params
from segkd.config.runs import Run
from segkd.report.build import report
from segkd.report.landing import landing

PAPER = {"title": "A method", "authors": "A. Author", "venue": "CVPR", "year": 2022, "arxiv": "2204.06986"}


@pytest.fixture
def params(tmp_path: Path) -> Params:
    return make_params(tmp_path)


def page_of(root: Path) -> str:
    return landing(root).read_text()


def text_of(page: str) -> str:
    """What a reader sees, in one line."""
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", page.partition("</head>")[2])).split())


def counts(page: str, row: str) -> list[int]:
    """The numbers of a row of the first score table."""
    found = re.search(rf"<tr><th scope=\"row\">\s*(?:<a[^>]*>)?{row}(.*?)</tr>", page, re.DOTALL)
    assert found
    return [int(number) for number in re.findall(r"<td[^>]*>(\d+)</td>", found[1])]


def two_papers(root: Path, params: Params) -> None:
    """One built, one not; values of all verdicts."""
    seeds = {"none": (59.9, 60.0, 60.1), "kd": (61.9, 62.0, 62.1), "ka": (63.0, 66.0, 69.0)}
    for method, scores in seeds.items():
        for seed, score in enumerate(scores):
            run = Run("tiny", "small", method, None if method == "none" else "large", seed)
            write_run(root, params, run, right_for(score))
    one = make_study(
        {"method": "none", "published": published(60.2)},
        {"method": "kd", "published": published(60.0)},
        {"method": "kd", "published": published(64.0)},
        {"method": "ka", "published": published(66.0)},
        {"method": "kd", "published": published(66.0, split="val")},
        title="First",
        paper=PAPER | {"doi": "10.1/x"},
        contradictions=["Its tables disagree."],
    )
    two = make_study(
        {"method": "none", "published": published(60.2)},
        {"method": "kd", "published": published(65.0)},
        {"method": "lad", "cannot_run": "nowhere defined", "published": published(71.0)},
        title="Second",
        paper=PAPER | {"year": 2019, "arxiv": None},
        defaults={"recipe": "tiny", "student": "small", "teacher": "large", "seeds": [7]},
        needs="gpu",
    )
    write_study(root, "first", one)
    write_study(root, "second", two)
    write_study(root, "plain", make_study(title="Plain", about="It shows the way. And more."))
    report("first", params, root)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("landing")
    two_papers(root, make_params(root))
    return root


@pytest.fixture(scope="module")
def page(root: Path) -> str:
    return page_of(root)


class TestScore:
    def test_every_published_value_is_counted_once(self, page: str) -> None:
        # reproduced, higher, lower, uncertain, not comparable, not run, all
        assert counts(page, "First") == [1, 1, 1, 1, 1, 0, 5]
        assert counts(page, "Second") == [0, 0, 0, 0, 0, 3, 3]
        assert counts(page, "All") == [1, 1, 1, 1, 1, 3, 8]
        each = "1 reproduced, 1 higher, 1 lower, 1 uncertain, 1 not comparable, 3 not run."
        assert f"8 published numbers in 2 studies: {each}" in page
        # one of the methods' six values is of `val`, where no student alone is published
        assert "5 published gains: 1 larger, 1 smaller, 1 uncertain, 2 not run." in page
        assert sorted(map(int, re.findall(r"All (\d+) published numbers", page))) == [3, 5]

    def test_papers_by_year_then_the_others(self, page: str) -> None:
        assert re.findall(r'<article id="study-(\w+)"', page) == ["second", "first", "plain"]
        assert "<p>It shows the way.</p>" in page
        assert "And more" not in page

    def test_rule_and_links(self, page: str) -> None:
        assert "tolerance t = max(0.5 points, s)" in page
        assert "https://arxiv.org/abs/2204.06986" in page
        assert "https://doi.org/10.1/x" in page
        assert "snakemake --cores all --resources gpu=1 second" in page
        assert "snakemake --cores all plain" in page
        assert "snakemake --cores all first" not in page
        found = {unquote(unescape(link)) for link in re.findall(r"href=\"([^\"#]+)\"", page)}
        assert {link for link in found if not link.startswith(("https://", "data:"))} == {"first/index.html"}

    def test_page_of_a_study_leads_to_paper_and_back(self, root: Path) -> None:
        page = (root / "reports/first/index.html").read_text()
        for words in ("https://arxiv.org/abs/2204.06986", 'href="../index.html"', "<li>Its tables disagree.</li>"):
            assert words in page

    def test_nothing_built_and_nothing_there(self, params: Params, tmp_path: Path) -> None:
        assert "No study here names a published number." in page_of(tmp_path)
        write_study(tmp_path, "one", make_study({"method": "kd", "published": published(60.0)}))
        assert "1 published number in 1 study: 1 not run." in page_of(tmp_path)

    def test_equal_bytes(self, root: Path, page: str, tmp_path: Path) -> None:
        assert page_of(root) == page
        two_papers(tmp_path, make_params(tmp_path))
        assert page_of(tmp_path) == page

    def test_self_contained_and_without_script(self, page: str) -> None:
        assert "<script" not in page
        assert re.findall(r"\bsrc=", page) == []
        assert re.findall(r"<link[^>]*href=\"([^\"]*)\"", page) == ["data:,"]

    @pytest.mark.fault("P4", "names that hold HTML on the page over all studies")
    def test_names_cannot_inject(self, params: Params, tmp_path: Path) -> None:
        hostile = "<script>alert(1)</script>"
        cell = {"method": "kd", "cannot_run": hostile, "published": published(60.0, source=hostile, note=hostile)}
        paper = PAPER | {"title": hostile, "doi": hostile}
        write_study(tmp_path, "one", make_study(cell, title=hostile, contradictions=[hostile], paper=paper))
        write_missing(tmp_path, {}, {"what": hostile, "why": hostile, "to_do": hostile, "studies": [hostile]})
        assert "<script" not in page_of(tmp_path)


class TestContradictions:
    def write(self, root: Path, name: str, *cells: dict[str, Any], **changes: Any) -> None:
        write_study(root, name, make_study(*cells, title=name.title(), **changes))

    def test_two_studies_that_share_no_value(self, params: Params, tmp_path: Path) -> None:
        for name, value in (("one", 60.0), ("two", 61.25), ("three", 60.0)):
            self.write(tmp_path, name, {"method": "kd", "published": published(value)})
        text = text_of(page_of(tmp_path))
        assert "digits test kd small taught by large 60.00 One: a paper; here recipe tiny" in text
        assert "61.25 Two: a paper" in text

    @pytest.mark.parametrize(
        "other",
        [
            {"method": "kd", "published": published(60.001)},  # as printed the same
            {"method": "kd", "published": published(61.0, split="val")},
            {"method": "ka", "published": published(61.0)},
            {"method": "kd", "student": "large", "published": published(61.0)},
            {"method": "kd", "teacher": "small", "published": published(61.0)},
            {"method": "none", "checkpoint": {"layout": "cirkd", "where": "w"}, "published": published(61.0)},
        ],
    )
    def test_other_numbers_are_no_contradiction(self, params: Params, tmp_path: Path, other: dict[str, Any]) -> None:
        self.write(tmp_path, "one", {"method": "kd", "published": published(60.0)})
        self.write(tmp_path, "two", other)
        assert "No two studies publish different values" in page_of(tmp_path)

    def test_an_ablation_within_a_study_is_none(self, params: Params, tmp_path: Path) -> None:
        self.write(tmp_path, "one", *({"method": "kd", "published": published(value)} for value in (60.0, 61.0)))
        self.write(tmp_path, "two", {"method": "kd", "published": published(61.0)})
        assert "No two studies publish different values" in page_of(tmp_path)

    def test_sentences_of_a_study_stand_under_its_title(self, params: Params, tmp_path: Path) -> None:
        self.write(tmp_path, "one", contradictions=["Table 2 and the README disagree."])
        assert "One Table 2 and the README disagree." in text_of(page_of(tmp_path))


class TestWhatLacks:
    def test_needs_are_listed(self, params: Params, tmp_path: Path) -> None:
        assert "What this machine lacks" not in page_of(tmp_path)
        need = {"what": "Cityscapes", "why": "no account", "to_do": "register", "studies": ["cirkd", "aicsd"]}
        write_missing(tmp_path, {"tiny/small/kd@large/seed0": "Cityscapes: no account"}, need)
        write_study(tmp_path, "one", make_study({"method": "kd", "seeds": [0], "published": published(60.0)}))
        text = text_of(page_of(tmp_path))
        assert "Cityscapes for cirkd, aicsd no account To do: register" in text
        assert "not run Cityscapes: no account" in text

    def test_a_damaged_list_is_said(self, params: Params, tmp_path: Path) -> None:
        write_missing(tmp_path, {})
        (tmp_path / "data/receipts/missing.json").write_text("[")
        assert "missing.json cannot be read" in page_of(tmp_path)

    def test_a_study_that_cannot_be_used_is_named_and_the_others_go_on(self, params: Params, tmp_path: Path) -> None:
        write_study(tmp_path, "good", make_study({"method": "kd", "published": published(60.0)}))
        write_study(tmp_path, "unknown", make_study({"method": "nowhere", "published": published(60.0)}))
        (tmp_path / "workflow/studies/broken.yaml").write_text("title: [")
        page = page_of(tmp_path)
        assert "1 published number in 1 study" in page
        assert re.findall(r"<li><code>(\w+)</code>", page) == ["broken", "unknown"]


def test_the_workflow_makes_it_again_when_any_study_or_name_changes(params: Params, tmp_path: Path) -> None:
    folder = tmp_path / "workflow/studies"
    write_study(tmp_path, "one", make_study())

    def changed(now: Params = params) -> set[str]:
        return {name for name, value in plan.landing_slice(now, folder).items() if value != before[name]}

    before = plan.landing_slice(params, folder)
    assert changed() == set()
    assert changed(make_params(tmp_path / "other", more={"method": "kd"})) == {"names"}
    one = folder / "one.yaml"
    one.write_text(f"# a comment\n{one.read_text()}")
    assert changed() == set()
    (folder / "two.yaml").write_text("title: [")
    assert changed() == {"studies"}


def test_it_shows_the_usual_runs_without_looking_at_images(params: Params, tmp_path: Path) -> None:
    write_usual(tmp_path, params)
    write_study(tmp_path, "one", make_study({"method": "none"}, {"method": "kd", "published": published(54.0)}))
    for path in tmp_path.rglob("per_image.npz"):
        path.unlink()
    assert "1 published number in 1 study: 1 uncertain." in page_of(tmp_path)
