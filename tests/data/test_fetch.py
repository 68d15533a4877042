import gc
import hashlib
import logging
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from unperturbed.data import CATALOGUE, fetch
from unperturbed.data.files import Download, OfficialSet, fetch_files
from unperturbed.records import SpecError

CONTENT = b"the official bytes" * 1000


def sha256(content):
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


@pytest.fixture
def server():
    """Serves CONTENT under /whole, half of it with the length of all under /torn, and something else under /other."""
    asked = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            body = {"/whole/file.gz": CONTENT, "/torn/file.gz": CONTENT[:9000], "/other/file.gz": b"other"}.get(
                self.path
            )
            if body is None:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(CONTENT) if "torn" in self.path else len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    logging.getLogger("pooch").setLevel(logging.WARNING)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{http.server_port}", asked
        http.shutdown()
        thread.join()
    gc.collect()  # pooch leaves the socket of a torn download to the collector


def official(address):
    return OfficialSet("tiny", (".",), (), (Download("file.gz", address, sha256(CONTENT)),))


def test_a_file_with_the_right_checksum_is_kept_and_not_fetched_again(server, tmp_path):
    address, asked = server
    for _ in range(2):
        (path,) = fetch_files(official(f"{address}/whole/file.gz"), tmp_path / "new" / "folder")
        assert path == tmp_path / "new" / "folder" / "file.gz"
        assert path.read_bytes() == CONTENT
    assert asked == ["/whole/file.gz"]


def test_a_damaged_file_is_fetched_again(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(CONTENT[:-1])
    (path,) = fetch_files(official(f"{server[0]}/whole/file.gz"), tmp_path)
    assert path.read_bytes() == CONTENT


def test_a_mirror_takes_the_place_of_the_public_address(server, tmp_path):
    (path,) = fetch_files(official("http://127.0.0.1:1/never/asked"), tmp_path, mirror=f"{server[0]}/whole/")
    assert path.read_bytes() == CONTENT


@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("/other/file.gz", f"expected {sha256(CONTENT)} but got {sha256(b'other').removeprefix('sha256:')}"),
        ("/torn/file.gz", "9000 bytes read, 9000 more expected"),
        ("/none/file.gz", "404"),
    ],
)
def test_a_failed_download_is_one_line_and_leaves_nothing(server, tmp_path, address, reason):
    with pytest.raises(SpecError, match=re.escape(reason)) as error:
        fetch_files(official(server[0] + address), tmp_path)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith(
        f"file.gz could not be fetched from {server[0]}{address} into {tmp_path} (expected {sha256(CONTENT)}): "
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_failed_download_leaves_the_file_that_was_there(server, tmp_path):
    (tmp_path / "file.gz").write_bytes(b"mine")
    with pytest.raises(SpecError, match="9000 bytes read"):
        fetch_files(official(f"{server[0]}/torn/file.gz"), tmp_path)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("file.gz", b"mine")]


def test_no_server_is_one_line(tmp_path):
    with pytest.raises(SpecError, match=r"^file\.gz could not be fetched from http://127\.0\.0\.1:1/file\.gz into"):
        fetch_files(official("http://127.0.0.1:1/file.gz"), tmp_path)


def test_a_folder_that_cannot_be_made_is_one_line(server, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(SpecError, match=f"into {re.escape(str(tmp_path))}/taken "):
        fetch_files(official(f"{server[0]}/whole/file.gz"), tmp_path / "taken")


def test_sets_go_below_the_root_the_environment_or_the_cache(bare, monkeypatch):
    asked = []

    def record(_, folder, **settings):
        asked.append(folder)
        return []

    monkeypatch.setattr("unperturbed.data.catalogue.fetch_files", record)
    fetch("mnist", bare)
    fetch("cifar10")
    monkeypatch.setenv("UNPERTURBED_DATA", str(bare / "environment"))
    fetch("mnist")
    assert asked == [bare / "mnist", bare.parent / "cache" / "unperturbed" / "cifar10", bare / "environment" / "mnist"]


def test_embedded_sets_need_nothing_and_unknown_ones_are_refused():
    assert fetch("digits") == []
    with pytest.raises(SpecError, match=r"^There is no data set 'cifar'\. There are: .* Did you mean 'cifar10'\?$"):
        fetch("cifar")


def test_the_addresses_are_public_and_the_checksums_those_of_the_authors():
    files = CATALOGUE["mnist"].files.downloads + CATALOGUE["cifar10"].files.downloads
    assert [download.address.split("/")[2] for download in files] == [
        *["ossci-datasets.s3.amazonaws.com"] * 4,
        "www.cs.toronto.edu",
    ]
    assert files[-1].checksum == "md5:c32a1d4ab5d03f1284b67883e8d87530"
    assert all(re.fullmatch(r"md5:[0-9a-f]{32}", download.checksum) for download in files)
