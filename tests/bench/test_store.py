"""Rows on disk: whole or not there, resumed, and merged into one sorted file."""

import csv
import io
import json

import attrs
import pytest

from scoreplug.bench.cell import Row
from scoreplug.bench.store import RowStore, find_row, read_rows, to_csv


@pytest.fixture
def rows(cells_of):
    found = cells_of({"conditioner": ["dps", "song"], "sampler": "em"}, seeds=3)
    return [Row(cell=cell, metrics={"crps": 0.1 * i}, cost={"seconds": 1.0}) for i, cell in enumerate(found)]


@pytest.fixture
def store(tmp_path):
    store = RowStore(tmp_path / "out")
    store.open()
    return store


def test_what_is_saved_is_loaded_by_its_cell(store, rows):
    for row in rows[:4]:
        store.save(row)

    assert store.load([row.cell for row in rows]) == {row.key: row for row in rows[:4]}


def test_a_damaged_file_is_as_good_as_none(store, rows):
    for row in rows[:2]:
        store.save(row)
    path = store.folder / "rows" / f"{rows[0].key}.json"
    path.write_bytes(path.read_bytes()[:50])

    assert set(store.load([row.cell for row in rows])) == {rows[1].key}


def test_a_row_goes_by_the_label_that_its_cell_has_now(store, rows):
    store.save(rows[0])
    renamed = attrs.evolve(rows[0].cell, method_label="new name")

    (found,) = store.load([renamed]).values()

    assert found.cell.method_label == "new name"
    assert found.metrics == rows[0].metrics


def test_the_merged_file_does_not_depend_on_the_order_of_the_rows(tmp_path, rows):
    contents = []
    for name, order in (("a", rows), ("b", rows[::-1])):
        store = RowStore(tmp_path / name)
        store.open()
        store.merge(order)
        contents.append(store.merged.read_bytes())

    assert contents[0] == contents[1]
    lines = contents[0].decode().splitlines()
    assert [json.loads(line)["cell"]["seed"] for line in lines] == [0, 1, 2, 0, 1, 2]
    assert all(list(json.loads(line)) == sorted(json.loads(line)) for line in lines)


def test_the_merged_file_alone_is_enough_to_go_on_from(store, rows):
    store.merge(rows)

    assert len(RowStore(store.folder).load([row.cell for row in rows])) == len(rows)


def test_merging_keeps_what_was_there_and_takes_the_new_result_of_the_same_cell(store, rows):
    store.merge(rows)
    again = attrs.evolve(rows[1], metrics={"crps": 7.0})

    found = store.merge([again])

    assert len(found) == len(rows)
    assert [row.metrics["crps"] for row in read_rows(store.merged) if row.key == again.key] == [7.0]


def test_nothing_unfinished_is_left(store, rows):
    for row in rows:
        store.save(row)
    store.merge(rows)

    assert not [path for path in store.folder.rglob("*") if path.name.startswith(".")]


def test_a_line_that_is_no_row_is_named(store, rows):
    store.merge(rows)
    with store.merged.open("a") as file:
        file.write("<<<<<<< ours\n")

    with pytest.raises(ValueError, match=r"line 7 of .* is no row of a benchmark"):
        read_rows(store.merged)


def test_a_row_is_found_by_the_beginning_of_its_key(store, rows):
    store.merge(rows)

    assert find_row(store.folder, rows[2].key[:16]) == rows[2]
    assert find_row(store.merged, rows[2].key) == rows[2]
    with pytest.raises(LookupError, match="has no row whose key begins with 'xyz'"):
        find_row(store.folder, "xyz")
    with pytest.raises(LookupError, match="has 6 rows whose key begins with ''"):
        find_row(store.folder, "")


def test_the_table_for_spreadsheets_has_a_line_per_row_and_says_nothing_where_there_is_nothing(rows):
    failed = Row(cell=rows[0].cell, status="failed", reason='a "quoted", reason')

    lines = list(csv.DictReader(io.StringIO(to_csv([*rows, failed]))))

    assert [line["crps"] for line in lines] == [str(0.1 * i) for i in range(6)] + [""]
    assert lines[-1]["reason"] == 'a "quoted", reason'
    assert lines[0]["cost_seconds"] == "1.0"


def test_an_output_folder_that_cannot_be_is_told_by_its_name(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(OSError, match=r"cannot make the output folder '.*file/out'.*choose another --out"):
        RowStore(tmp_path / "file" / "out").open()


def test_merging_reads_no_file_of_a_row_that_it_is_given(store, rows, monkeypatch):
    for row in rows:
        store.save(row)
    asked = []
    original = RowStore._read

    def read(self, path):
        asked.append(path.stem)
        return original(self, path)

    monkeypatch.setattr(RowStore, "_read", read)
    found = store.merge(rows[:4])

    assert sorted(asked) == sorted(row.key for row in rows[4:])
    assert {row.key for row in found} == {row.key for row in rows}
