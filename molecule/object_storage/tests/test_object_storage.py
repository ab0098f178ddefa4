"""What applications get from the object storage, and who is refused; each refusal beside a twin that is let through."""

from __future__ import annotations

from typing import Any

import pytest
from s3_client import ADDRESS, CERTIFICATE, PORT, call

from lab.testing import tls_faults

EVERYTHING = """
s3, body = client(endpoint=job["endpoint"]), bytes(range(256)) * 4
s3.put_object(Bucket="uploads", Key="plain/Größe 1.txt", Body=body, ContentType="text/x-test", Metadata={"origin": "test"})
got = s3.get_object(Bucket="uploads", Key="plain/Größe 1.txt")
part = s3.get_object(Bucket="uploads", Key="plain/Größe 1.txt", Range="bytes=10-19")["Body"].read()
listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket="uploads", Prefix="plain/")["Contents"]]

upload = s3.create_multipart_upload(Bucket="uploads", Key="large")["UploadId"]
parts = []
for number, piece in enumerate((b"a" * (5 << 20), b"b" * 1000), 1):
    tag = s3.upload_part(Bucket="uploads", Key="large", UploadId=upload, PartNumber=number, Body=piece)["ETag"]
    parts.append({"PartNumber": number, "ETag": tag})
s3.complete_multipart_upload(Bucket="uploads", Key="large", UploadId=upload, MultipartUpload={"Parts": parts})
large = s3.get_object(Bucket="uploads", Key="large")["Body"].read()

s3.put_object(Bucket="uploads", Key="checked", Body=b"x", ChecksumAlgorithm="CRC32")
signed = s3.generate_presigned_url("get_object", Params={"Bucket": "uploads", "Key": "checked"}, ExpiresIn=60)
import ssl
presigned = urllib.request.urlopen(signed, context=ssl.create_default_context(cafile=job["ca"])).read().decode()
s3.copy_object(Bucket="uploads", Key="copy", CopySource={"Bucket": "uploads", "Key": "checked"})
copied = s3.get_object(Bucket="uploads", Key="copy")["Body"].read().decode()
for key in ("plain/Größe 1.txt", "large", "checked", "copy"):
    s3.delete_object(Bucket="uploads", Key=key)
print(json.dumps({
    "same": got["Body"].read() == body, "type": got["ContentType"], "metadata": got["Metadata"], "part": part == body[10:20], "listed": listed,
    "large": large == b"a" * (5 << 20) + b"b" * 1000, "presigned": presigned, "copied": copied,
    "gone": refusal(s3.get_object, Bucket="uploads", Key="large"), "left": s3.list_objects_v2(Bucket="uploads", Prefix="plain/")["KeyCount"]}))
"""


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9000", "https://127.0.0.1:9001"])
def test_an_application_puts_gets_lists_and_deletes(endpoint: str) -> None:
    assert call(EVERYTHING, endpoint=endpoint) == {
        "same": True,
        "type": "text/x-test",
        "metadata": {"origin": "test"},
        "part": True,
        "listed": ["plain/Größe 1.txt"],
        "large": True,
        "presigned": "x",
        "copied": "x",
        "gone": "NoSuchKey",
        "left": 0,
    }


def test_a_user_sees_its_own_buckets_and_no_others() -> None:
    program = """
own, other = client("dify"), client("backups")
own.put_object(Bucket="uploads", Key="mine", Body=b"x")
print(json.dumps({
    "own": [bucket["Name"] for bucket in own.list_buckets()["Buckets"]], "others": [bucket["Name"] for bucket in other.list_buckets()["Buckets"]],
    "read": refusal(other.get_object, Bucket="uploads", Key="mine"), "write": refusal(other.put_object, Bucket="uploads", Key="theirs", Body=b"x"),
    "list": refusal(other.list_objects_v2, Bucket="uploads"), "mine": own.get_object(Bucket="uploads", Key="mine")["Body"].read().decode(),
}))
own.delete_object(Bucket="uploads", Key="mine")
"""
    refused = {"read": "NoSuchBucket", "write": "NoSuchBucket", "list": "NoSuchBucket"}
    assert call(program) == {"own": ["uploads"], "others": ["archive"], "mine": "x", **refused}


def test_a_refused_upload_leaves_the_connection_usable() -> None:
    program = """
other = client("backups")
refused = [(refusal(other.put_object, Bucket="uploads", Key="theirs", Body=b"x"), refusal(other.list_objects_v2, Bucket="uploads")) for _ in range(5)]
print(json.dumps([refused, other.list_objects_v2(Bucket="archive")["KeyCount"]]))
"""
    assert call(program) == [[["NoSuchBucket"] * 2] * 5, 0]


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        pytest.param("client", "127.0.0.1:9001", id="S3 at the service proxy"),
        pytest.param("client", f"{ADDRESS['s3a']}:6280", id="S3 at a member"),
        *(pytest.param("s3b", f"{ADDRESS['s3a']}:{port}", id=f"among members, {port}") for port in (6200, 6201, 6202, 6203)),
    ],
)
def test_old_cipher_suites_are_refused(on: Any, host: str, endpoint: str) -> None:
    assert tls_faults(on(host), endpoint) == []


def test_who_cannot_sign_is_refused() -> None:
    program = """
s3 = client()
s3.put_object(Bucket="uploads", Key="secret", Body=b"x")
def anonymous():
    try:
        return urllib.request.urlopen("http://127.0.0.1:9000/uploads/secret").status
    except urllib.error.HTTPError as error:
        return error.code
print(json.dumps([
    s3.get_object(Bucket="uploads", Key="secret")["Body"].read().decode(),
    refusal(client(secret="x" * 43).get_object, Bucket="uploads", Key="secret"),
    refusal(client("nobody", secret="x" * 43).get_object, Bucket="uploads", Key="secret"),
    anonymous(),
]))
s3.delete_object(Bucket="uploads", Key="secret")
"""
    assert call(program) == ["x", "SignatureDoesNotMatch", "SignatureDoesNotMatch", 400]


def test_members_answer_clients_with_a_certificate_alone(on: Any) -> None:
    url = f"https://s3b.storage.test:{PORT}/healthcheck"
    ask = f"curl --silent --show-error --max-time 5 --resolve s3b.storage.test:{PORT}:{ADDRESS['s3b']}"
    assert on("client").check_output(f"{ask} {CERTIFICATE} {url}") == "OK"
    assert "certificate required" in on("client").run(f"{ask} --cacert /etc/sovereign/pki/ca.crt {url}").stderr
    assert on("client").run(f"{ask} http://s3b.storage.test:{PORT}/healthcheck").rc != 0
    # Another member has a certificate, but is no client: the firewalls say so.
    assert on("s3a").run(f"{ask} {CERTIFICATE} {url}").rc in {7, 28}


@pytest.mark.parametrize("port", [6200, 6201, 6202])
def test_members_talk_to_members_alone(on: Any, port: int) -> None:
    url = f"https://s3b.storage.test:{port}/healthcheck"
    ask = f"curl --silent --show-error --max-time 5 --resolve s3b.storage.test:{port}:{ADDRESS['s3b']} {url}"
    assert on("s3a").check_output(f"{ask} {CERTIFICATE}") == "OK"
    assert on("s3a").run(f"{ask} --cacert /etc/sovereign/pki/ca.crt").rc != 0
    assert on("client").run(f"{ask} {CERTIFICATE}").rc != 0
    # Even past the firewall, a certificate of ours is not enough: it must be a member's.
    stolen = on("client").check_output("cat /etc/sovereign/pki/host.pem")
    on("s3a").run_expect([0], f"umask 077; printf %s '{stolen}' > /root/stolen.pem")
    refused = on("s3a").run(f"{ask} --cacert /etc/sovereign/pki/ca.crt --cert /root/stolen.pem")
    on("s3a").run_expect([0], "rm /root/stolen.pem")
    assert refused.rc != 0
    assert "OK" not in refused.stdout


def test_in_clear_nothing_listens_but_on_loopback(on: Any) -> None:
    listening = on("s3a").check_output("ss --no-header --listening --tcp --numeric --processes").splitlines()
    swift = {line.split()[3] for line in listening if "swift" in line or "rsync" in line}
    assert {address.split(":")[0] for address in swift} == {"127.18.57.11"}
    outside = {line.split()[3] for line in listening if not line.split()[3].startswith(("127.", "[::1]"))}
    assert {address for address in outside if not address.endswith(":22")} == {f"{ADDRESS['s3a']}:{port}" for port in (6200, 6201, 6202, 6203, PORT)}


def test_only_root_and_swift_read_the_secrets(on: Any) -> None:
    for name in ("swift.conf", "proxy-server.conf"):
        assert on("s3a").run(f"setpriv --reuid=haproxy --regid=haproxy --clear-groups cat /etc/swift/{name}").rc != 0
        assert on("s3a").run(f"setpriv --reuid=swift --regid=swift --clear-groups cat /etc/swift/{name}").rc == 0


READ_WITHOUT_A_KEY = """
import http.client, sys
try:
    connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=5)
    connection.request("GET", "/recon/version")
    print(connection.getresponse().status)
except OSError as error:
    print(type(error).__name__)
"""


@pytest.mark.parametrize("port", [6200, 6201, 6202])
def test_local_users_do_not_reach_servers_that_ask_for_no_key(on: Any, port: int) -> None:
    def answer(user: str, address: str) -> str:
        return str(on("s3a").check_output("setpriv --reuid=%s --clear-groups python3 -c %s %s %s", user, READ_WITHOUT_A_KEY, address, str(port)))

    # This member's own server, and another's through the mesh.
    for address in ("127.18.57.11", "127.18.57.12"):
        assert answer("swift", address) == "200"
        assert answer("nobody", address) != "200"
