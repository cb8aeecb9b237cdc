"""Fetching a file from a server with every fault: whole at the end, or a clear error and nothing there."""

from __future__ import annotations

import hashlib
import http.client
import socket
import time
from dataclasses import replace
from pathlib import Path

import pytest

from skinlesion_cli.data.download.fetch import Expected, fetch
from skinlesion_cli.data.download.http import Patience
from skinlesion_cli.errors import DataError, ExitCode, SkinLesionError
from skinlesion_cli.progress import SilentReporter
from tests.support.command_line import room_for
from tests.support.http_server import OfficialServer

NAME = "file.bin"
CONTENT = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(20_000))  # 640,000 bytes
MD5 = hashlib.md5(CONTENT).hexdigest()


class Notes(SilentReporter):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


@pytest.fixture
def server():
    server = OfficialServer()
    server.files[NAME] = CONTENT
    server.cut_after_bytes = 200_000
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture
def waits() -> list[float]:
    return []


@pytest.fixture
def patience(waits: list[float]) -> Patience:
    return Patience(tries=4, first_wait_s=1.0, timeout_s=20.0, sleep=waits.append)


def get(server: OfficialServer, folder: Path, patience: Patience, **known):
    notes = Notes()
    fetched = fetch(Expected(NAME, **known), [server.url + NAME], folder, notes, patience)
    return fetched, notes.notes


def assert_whole(folder: Path) -> None:
    assert (folder / NAME).read_bytes() == CONTENT
    assert sorted(path.name for path in folder.iterdir()) == [NAME]


def test_a_file_comes_whole_with_its_hashes(server, tmp_path, patience):
    fetched, notes = get(server, tmp_path, patience, size_bytes=640_000, md5=MD5)
    assert_whole(tmp_path)
    assert (fetched.size_bytes, fetched.md5, fetched.sha256) == (
        640_000,
        MD5,
        hashlib.sha256(CONTENT).hexdigest(),
    )
    assert (notes, server.gets(NAME)) == ([], [None])


def test_cut_lines_are_continued_where_they_were_cut(server, tmp_path, patience, waits):
    server.faults[NAME].extend(["cut", "cut"])
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=200000-", "bytes=400000-"]
    assert server.sent_bytes[NAME] == 640_000
    # Each attempt made progress, so the waits do not grow.
    assert waits == [1.0, 1.0]


def test_failing_tries_are_spaced_ever_wider_and_lose_nothing(server, tmp_path, patience, waits):
    server.faults[NAME].extend(["cut", "503", "503"])
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=200000-", "bytes=200000-", "bytes=200000-"]
    assert server.sent_bytes[NAME] == 640_000
    assert waits == [1.0, 2.0, 4.0]


def test_a_range_answered_with_the_whole_file_starts_over(server, tmp_path, patience):
    server.faults[NAME].extend(["cut", "ignore_range"])
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)


def test_a_mirror_without_head_requests(server, tmp_path, patience):
    server.head_allowed = False
    server.faults[NAME].extend(["cut", "503"])
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=200000-", "bytes=200000-"]


def test_416_starts_over(server, tmp_path, patience):
    server.faults[NAME].extend(["cut", "416"])
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=200000-", None]


@pytest.mark.parametrize("fault", ["503", "silent", "too_long"])
def test_passing_faults_are_retried(server, tmp_path, patience, fault):
    server.faults[NAME].append(fault)
    get(server, tmp_path, replace(patience, timeout_s=1.0), md5=MD5)
    assert_whole(tmp_path)


def test_slow_answers_are_waited_for(server, tmp_path, patience):
    server.chunk_delay_s = 0.02
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None]


def test_bytes_from_the_wrong_place_are_noticed_and_fetched_anew(server, tmp_path, patience):
    server.faults[NAME].extend(["cut", "wrong_offset"])
    _, notes = get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert any("bad file was removed" in note for note in notes)
    assert server.gets(NAME)[-1] is None


@pytest.mark.parametrize("etags", [True, False])
def test_a_file_that_changed_between_two_tries_is_not_mixed(server, tmp_path, patience, etags):
    old = bytes(byte ^ 0xFF for byte in CONTENT)
    server.etags = etags
    server.files[NAME] = old

    def change(handler, name):
        server.files[name] = CONTENT
        return "good"

    server.faults[NAME].append("cut")
    server.faults[NAME].append(change)
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)


def test_a_changed_file_is_not_mixed_even_where_no_hash_is_known(server, tmp_path, patience):
    server.files[NAME] = bytes(byte ^ 0xFF for byte in CONTENT)

    def change(handler, name):
        server.files[name] = CONTENT
        return "good"

    server.faults[NAME].extend(["cut", change])
    get(server, tmp_path, patience)
    assert_whole(tmp_path)


def test_nor_where_it_changed_between_two_runs(server, tmp_path, patience):
    server.files[NAME] = bytes(byte ^ 0xFF for byte in CONTENT)
    server.faults[NAME].extend(["cut", "503"])
    with pytest.raises(SkinLesionError):
        get(server, tmp_path, Patience(tries=1, timeout_s=20.0))
    assert (tmp_path / f"{NAME}.part").stat().st_size == 200_000
    server.files[NAME] = CONTENT
    get(server, tmp_path, patience)
    assert_whole(tmp_path)


def test_a_file_that_shrank_is_fetched_anew(server, tmp_path, patience):
    server.files[NAME] = CONTENT + CONTENT
    server.faults[NAME].extend(["cut", "503"])
    with pytest.raises(SkinLesionError):
        get(server, tmp_path, Patience(tries=1, timeout_s=20.0))
    server.files[NAME] = CONTENT
    _, notes = get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert any("starting again" in note for note in notes)


def test_a_wrong_hash_is_an_error_and_leaves_nothing(server, tmp_path, patience):
    with pytest.raises(DataError, match=f"md5 {MD5}, expected 0000") as caught:
        get(server, tmp_path, patience, md5="0" * 32)
    assert "--ignore-hashes" in caught.value.hint
    assert list(tmp_path.iterdir()) == []
    assert server.gets(NAME) == [None, None]  # once more, in case it was put together from two versions


def test_a_wrong_size_is_an_error_before_anything_is_fetched(server, tmp_path, patience):
    with pytest.raises(DataError, match="640,000 bytes on the server, expected 640,001"):
        get(server, tmp_path, patience, size_bytes=640_001)
    assert list(tmp_path.iterdir()) == []


def test_a_doubtful_hash_only_leads_to_a_notice(server, tmp_path, patience):
    fetched, _ = get(server, tmp_path, patience, unconfirmed_md5="0" * 32)
    assert_whole(tmp_path)
    assert fetched.notes == (f"{NAME} has md5 {MD5}; a third party recorded {'0' * 32}",)


def test_the_second_address_is_used_where_the_first_has_nothing(server, tmp_path, patience):
    urls = [f"{server.url}elsewhere/{NAME}", server.url + NAME]
    fetched = fetch(Expected(NAME, md5=MD5), urls, tmp_path, Notes(), patience)
    assert_whole(tmp_path)
    assert fetched.url == urls[1]


def test_the_second_address_goes_on_where_the_first_was_cut(server, tmp_path, patience):
    second = OfficialServer()
    second.files[NAME] = CONTENT
    server.faults[NAME].extend(["cut", "503"])
    try:
        urls = [server.url + NAME, second.url + NAME]
        fetch(Expected(NAME, md5=MD5), urls, tmp_path, Notes(), patience)
        assert second.gets(NAME) == ["bytes=200000-"]
    finally:
        second.shutdown()
        second.server_close()
    assert_whole(tmp_path)


def test_a_bad_file_at_the_first_address_is_replaced_by_the_second(server, tmp_path, patience):
    second = OfficialServer()
    second.files[NAME] = CONTENT
    server.faults[NAME].append("flipped")
    try:
        urls = [server.url + NAME, second.url + NAME]
        assert fetch(Expected(NAME, md5=MD5), urls, tmp_path, Notes(), patience).url == urls[1]
    finally:
        second.shutdown()
        second.server_close()
    assert_whole(tmp_path)


def test_no_server_at_all(tmp_path, patience, waits):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{free.getsockname()[1]}/{NAME}"
    with pytest.raises(SkinLesionError) as caught:
        fetch(Expected(NAME), [url], tmp_path, Notes(), patience)
    assert caught.value.exit_code is ExitCode.FAILURE
    assert url in caught.value.message
    assert waits == [1.0, 2.0, 4.0]
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_never_recovers_ends_in_an_error(server, tmp_path, patience):
    server.faults[NAME].extend(["503"] * 50)
    with pytest.raises(SkinLesionError, match="the server answers 503"):
        get(server, tmp_path, patience)
    assert not (tmp_path / NAME).exists()


def test_a_disk_that_is_full_is_reported_and_what_came_is_kept(server, tmp_path, patience):
    with room_for(100_000), pytest.raises(SkinLesionError, match="cannot write"):
        get(server, tmp_path, patience)
    assert not (tmp_path / NAME).exists()
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=100000-"]


def test_a_server_that_states_no_length(server, tmp_path, patience):
    server.faults[NAME].append("no_length")
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)


def test_a_body_without_length_or_end_is_bounded(server, tmp_path, patience):
    server.faults[NAME].extend(["no_length_no_end"] * 9)
    with pytest.raises(DataError, match="more than 1,000,000 bytes"):
        get(server, tmp_path, replace(patience, timeout_s=20.0), limit_bytes=1_000_000)
    assert list(tmp_path.iterdir()) == []
    assert server.sent_bytes[NAME] < 50_000_000  # of 1,280,000,000


def test_a_compressed_transfer_is_not_accepted(server, tmp_path, patience):
    server.faults[NAME].append("gzip")
    _, notes = get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert any("compressed (gzip)" in note for note in notes)


def test_a_body_that_trickles_is_abandoned(server, tmp_path, patience):
    slow = replace(patience, rate_window_s=0.3)
    server.faults[NAME].extend(["trickle", "trickle"])
    started = time.monotonic()
    _, notes = get(server, tmp_path, slow, md5=MD5)
    assert time.monotonic() - started < 8  # either of them would take 10 s
    assert_whole(tmp_path)
    assert any("bytes per second" in note for note in notes)


def test_an_answer_whose_header_trickles_is_abandoned(server, tmp_path, patience):
    server.faults[NAME].append("trickle_header")
    started = time.monotonic()
    _, notes = get(server, tmp_path, replace(patience, answer_s=0.3), md5=MD5)
    assert time.monotonic() - started < 8
    assert_whole(tmp_path)
    assert any("no answer within 0.3 s" in note for note in notes)


@pytest.mark.parametrize("known", [{}, {"limit_bytes": 1_000_000}, {"size_bytes": 640_000}])
def test_a_stated_size_of_5_terabytes_is_refused_before_anything_is_written(
    server, tmp_path, patience, known
):
    server.faults[NAME].extend(["five_terabytes"] * 9)
    with pytest.raises(SkinLesionError, match=r"5,000(,000,000,000 bytes|\.0 GB) on the server") as caught:
        get(server, tmp_path, patience, **known)
    assert caught.value.exit_code is ExitCode.FAILURE
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_was_not_requested_is_not_written(server, tmp_path, patience):
    server.faults[NAME].extend(["cut", "other_range"])
    get(server, tmp_path, patience)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None, "bytes=200000-", None]


def test_redirects_are_followed_and_a_circle_of_them_is_not(server, tmp_path, patience):
    server.redirects["old"] = server.url + NAME
    fetched = fetch(Expected(NAME, md5=MD5), [server.url + "old"], tmp_path, Notes(), patience)
    assert fetched.url == server.url + "old"
    assert_whole(tmp_path)
    server.redirects["round"] = server.url + "round"
    with pytest.raises(SkinLesionError, match="TooManyRedirects"):
        fetch(Expected("other.bin"), [server.url + "round"], tmp_path, Notes(), replace(patience, tries=1))


def test_a_proxy_of_the_environment_is_used(server, tmp_path, patience, monkeypatch):
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("http_proxy", server.url.removesuffix("/data/"))
    fetch(Expected(NAME, md5=MD5), [f"http://archive.invalid/data/{NAME}"], tmp_path, Notes(), patience)
    assert_whole(tmp_path)
    monkeypatch.setenv("http_proxy", "nonsense://127.0.0.1:1")
    with pytest.raises(SkinLesionError, match="proxy settings") as caught:
        fetch(Expected("other.bin"), [f"http://archive.invalid/data/{NAME}"], tmp_path, Notes(), patience)
    assert "HTTPS_PROXY" in caught.value.hint


def test_a_complete_part_needs_no_request(server, tmp_path, patience):
    server.faults[NAME].extend(["cut", "503"])
    with pytest.raises(SkinLesionError):
        get(server, tmp_path, replace(patience, tries=1))
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT)
    n_requests = len(server.requests)
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert len(server.requests) == n_requests


def test_a_part_without_a_note_is_not_continued(server, tmp_path, patience):
    (tmp_path / f"{NAME}.part").write_bytes(b"something else")
    get(server, tmp_path, patience, md5=MD5)
    assert_whole(tmp_path)
    assert server.gets(NAME) == [None]


def test_the_server_of_these_tests_does_ranges(server):
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1])
    connection.request("GET", f"/data/{NAME}", headers={"Range": "bytes=639990-"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (206, CONTENT[-10:])
