"""What a report writes: one self-contained page, figures, tables; the same ones when made again."""

import base64
import json
import re
from pathlib import Path

import altair as alt
import jsonschema
import pandas as pd
import pytest
from reading import markup, page, specs
from synthetic import GMRES, UNROLLED, Made
from vl_convert import vegalite_to_svg

from db import Store, StoreError
from experiments.report import render


def test_page_needs_no_network(html: str) -> None:
    addresses = re.findall(r"""\b(?:src|href|action)\s*=\s*["']?([^"'\s>]*)""", markup(html))
    assert len(addresses) > 10
    assert all(a.startswith(("#", "data:")) for a in addresses)
    assert "default-src 'none'" in html
    assert not re.search(r"@import|url\(|https?:", markup(html))


def test_runtime_is_inside(html: str) -> None:
    assert "vegaEmbed" in html
    assert len(html) > 800_000


def test_every_section_and_figure_is_there(html: str, folder: Path) -> None:
    for anchor in re.findall(r'<a href="#([^"]*)"', html):
        assert f'id="{anchor}"' in html
    drawn = specs(html)
    assert set(drawn) == {path.stem for path in (folder / "figures").glob("*.svg")}
    wanted = ("work-precision-mlp", "convergence", "bytes", "depth-mlp", "depth-transformer")
    assert set(wanted) <= set(drawn)


def test_figures_are_valid_vega_lite_and_draw(html: str, folder: Path) -> None:
    schema = jsonschema.Draft7Validator(alt.load_schema())
    for name, spec in specs(html).items():
        assert schema.is_valid({key: spec[key] for key in spec if key != "datasets"}), name
        svg = (folder / "figures" / f"{name}.svg").read_text()
        assert svg.startswith("<svg")
        assert "http" not in svg.replace("http://www.w3.org/", "")
        assert svg.count("<path") > 10


def test_every_axis_has_a_title(html: str) -> None:
    def axes(node: object) -> list[object]:
        if isinstance(node, dict):
            own = [node["axis"]] if isinstance(node.get("axis"), dict) else []
            return own + [found for child in node.values() for found in axes(child)]
        if isinstance(node, list):
            return [found for child in node for found in axes(child)]
        return []

    for spec in specs(html).values():
        found = axes(spec["vconcat"])
        assert found
        assert all(axis["title"] for axis in found)  # type: ignore[index]


def test_tables_can_be_downloaded_from_the_page_as_they_lie_beside_it(
    html: str, folder: Path
) -> None:
    found = re.findall(
        r'download="([^"]*)" href="data:text/csv;charset=utf-8;base64,([^"]*)"', html
    )
    assert len(found) >= 5
    for name, encoded in found:
        assert base64.b64decode(encoded).decode() == (folder / "tables" / name).read_text()


def test_points_table_holds_the_rows_of_the_store(folder: Path, filled: Store) -> None:
    written = pd.read_csv(folder / "tables" / "points.csv")
    solves = filled.solves("phase=forward").set_index("solve_id").loc[written["solve_id"]]
    checks = filled.gradients().dropna(subset=["solve_id"]).set_index("solve_id")
    assert len(written) == len(filled.solves("phase=forward"))
    for column in ("evaluations", "seconds", "residual_relative", "history_bytes"):
        pd.testing.assert_series_equal(
            written[column], solves[column].reset_index(drop=True), check_dtype=False
        )
    for column in ("rel_err", "kept_bytes", "backward_seconds", "products", "loss"):
        expected = checks[column].reindex(written["solve_id"]).astype("float64")
        pd.testing.assert_series_equal(
            written[column].astype("float64"), expected.reset_index(drop=True), check_names=False
        )


def test_figures_show_the_medians_of_the_store(html: str, filled: Store) -> None:
    rows = specs(html)["work-precision-mlp"]["datasets"]["gradients"]
    sql = (
        "select g.rel_err, f.seconds, f.evaluations from v_gradients g"
        " join v_solves f on f.solve_id = g.solve_id where g.model = 'mlp' and not g.fixed_budget"
        " and g.solver = '{solver}' and g.gradient = '{method}' and f.reltol = {reltol}"
    )
    assert len(rows) == 3 * (3 * 2 + 2)
    for row in rows:
        method = row["gradient"].split(" · ")[0]
        known = filled.query(sql.format(method=method, solver=row["solver"], reltol=row["reltol"]))
        assert row["rel_err"] == pytest.approx(known["rel_err"].median(), rel=1e-12)
        assert row["rel_err_hi"] == pytest.approx(known["rel_err"].max(), rel=1e-12)
        assert row["evaluations"] == known["evaluations"].median()


def test_bytes_figure_shows_the_fixed_budgets_of_the_store(html: str, filled: Store) -> None:
    spec = specs(html)["bytes"]
    rows = spec["datasets"]["budgets_0"]
    for row in rows:
        method = row["gradient"].split(" · ")[0]
        known = filled.query(
            "select kept_bytes, history_bytes from v_gradients where model = 'mlp' and fixed_budget"
            f" and gradient = '{method}' and max_evaluations = {row['max_evaluations']}"
        )
        assert row["kept_bytes"] == known["kept_bytes"].median()
        assert row["bytes"] == (known["kept_bytes"] + known["history_bytes"]).median()
    assert {row["gradient"] for row in rows} == {"implicit · gmres", "unrolled"}


def test_traces_are_those_of_the_store(html: str, filled: Store) -> None:
    spec = specs(html)["convergence"]
    rows = pd.DataFrame(spec["datasets"]["traces_0"])
    for solve, line in rows.groupby("solve_id"):
        known = filled.trace(int(solve))  # type: ignore[call-overload]
        assert line["residual"].tolist() == known["residual"].tolist()
        assert line["evaluations"].tolist() == known["evaluations"].tolist()


def test_made_again_it_is_the_same_byte_for_byte(
    folder: Path, filled: Store, tmp_path: Path
) -> None:
    again = render("compare", filled, tmp_path / "again").parent
    files = sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file())
    assert files == sorted(p.relative_to(again) for p in again.rglob("*") if p.is_file())
    for file in files:
        assert (folder / file).read_bytes() == (again / file).read_bytes(), file


def test_it_goes_to_results_by_default_and_leaves_nothing_stale(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.study = "my_study"
    made.end(made.run())
    monkeypatch.chdir(tmp_path)
    stale = tmp_path / "results" / "my_study" / "figures" / "old.svg"
    stale.parent.mkdir(parents=True)
    stale.write_text("<svg/>")
    written = render("my_study", Store(made.path))
    assert written == Path("results/my_study/index.html")
    assert written.exists()
    assert not stale.exists()


def test_a_folder_that_was_named_keeps_what_is_in_it(made: Made, tmp_path: Path) -> None:
    made.end(made.run())
    kept = tmp_path / "figures" / "mine.svg"
    kept.parent.mkdir()
    kept.write_text("<svg/>")
    render("compare", Store(made.path), tmp_path)
    assert kept.exists()


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'{{7*7}}<!--"


def test_what_comes_from_the_store_cannot_become_html(made: Made, tmp_path: Path) -> None:
    for seed in range(2):
        made.measured(HOSTILE, HOSTILE, GMRES, seed, (1e-2, 1e-4), solve={"message": HOSTILE})
        made.measured(
            HOSTILE, "picard", UNROLLED, seed, (1, 2), fixed_budget=True, solve={"retcode": HOSTILE}
        )
    made.measured(
        HOSTILE, "anderson", GMRES, 0, (1e-2,), solve={"converged": 0.0, "retcode": HOSTILE}
    )
    made.end(made.run(HOSTILE, HOSTILE), ValueError(HOSTILE))
    html = render("compare", Store(made.path), tmp_path / "out").read_text()
    assert "<script>alert" not in html
    assert "<img" not in markup(html)
    assert "{{7*7}}" in markup(html)
    assert html.count("<script") == html.count("</script>")
    for name, spec in specs(html).items():
        assert re.fullmatch(r"[a-z0-9-]+", name)
        assert HOSTILE in json.dumps(spec["datasets"], ensure_ascii=False).replace('\\"', '"')
        assert "<img" not in vegalite_to_svg(spec)


def test_nothing_to_report_is_an_error_with_a_remedy_and_writes_nothing(
    made: Made, tmp_path: Path
) -> None:
    empty = Store(tmp_path / "empty.db", create=True)
    with pytest.raises(StoreError, match="no run of a study yet: `deq study compare`"):
        render("compare", empty, tmp_path / "out")
    made.end(made.run())
    with pytest.raises(StoreError, match="did you mean 'compare'"):
        render("compere", Store(made.path), tmp_path / "out")
    with pytest.raises(StoreError, match="no run fits the filter"):
        render("compare", Store(made.path), tmp_path / "out", where="seed=77")
    with pytest.raises(StoreError, match="modle"):
        render("compare", Store(made.path), tmp_path / "out", where="modle.name=mlp")
    assert not (tmp_path / "out").exists()


def test_a_page_without_a_solve_still_says_what_happened(made: Made, tmp_path: Path) -> None:
    made.end(made.run(), RuntimeError("out of memory"))
    html = render("compare", Store(made.path), tmp_path / "out").read_text()
    assert "RuntimeError: out of memory" in html
    assert specs(html) == {}
    assert page(made).sections[0].title == "The answer"
