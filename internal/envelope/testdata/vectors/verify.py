# SPDX-License-Identifier: Apache-2.0
"""A second reader of the envelope format, written from README.md alone: python3 verify.py"""
import hashlib, hmac, json, pathlib, struct
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

here = pathlib.Path(__file__).parent
load = lambda name: json.loads((here / f"{name}.json").read_text())
un = bytes.fromhex
mac = lambda key, data: hmac.new(key, data, hashlib.sha256).digest()
u8, u16, u32, u64 = (lambda n, f=f: struct.pack(f, n) for f in (">B", ">H", ">I", ">Q"))


def hkdf(key, label):
    return mac(mac(bytes(32), key), label.encode() + b"\x01")


def text(s):
    s = s if isinstance(s, bytes) else s.encode()
    assert 1 <= len(s) <= 255
    return u16(len(s)) + s


def gcm_open(key, aad, sealed):
    return AESGCM(key).decrypt(sealed[:12], sealed[12:], aad)


def place(p):
    names = ("practice", "patient", "table", "record", "field")
    return text("mr-aad-1") + b"".join(text(p[n]) for n in names) + u64(p["field_version"]) + u32(p["dek_version"])


def field_key(dek, name):
    return hkdf(dek, "mr/header/v1" if name == "header" else "mr/field/v1")


def keeper_unwrap(key, name, wrapped, aad):
    assert wrapped[0] == 1
    return gcm_open(key, text("mr-file-1") + text(name) + wrapped[1:5] + aad, wrapped[5:])


class Malformed(Exception):
    pass


def need(ok):
    if not ok:
        raise Malformed


def parse(b):
    need(47 <= len(b) <= 16 << 20 and b[0] == 1)
    dek, version, count = struct.unpack(">IQH", b[1:15])
    need(1 <= dek < 1 << 31 and 1 <= version < 1 << 63 and count <= 64)
    body, fields, last = b[15:-32], [], b""
    for _ in range(count):
        need(body and len(body) >= 13 + body[0])
        n = body[0]
        name, (fv, size) = body[1:1 + n], struct.unpack(">QI", body[1 + n:13 + n])
        need(1 <= n <= 64 and all(c in b"abcdefghijklmnopqrstuvwxyz0123456789_" for c in name) and name > last)
        need(1 <= fv <= version and 28 <= size <= (8 << 20) + 28 and 13 + n + size <= len(body))
        fields.append((name, fv, body[13 + n:13 + n + size]))
        body, last = body[13 + n + size:], name
    need(not body)
    return dek, version, fields, b[:15], b[-32:]


for v in load("hkdf"):
    for key, label in (("field_key", "field"), ("header_key", "header"), ("mac_key", "mac"), ("commitment", "commit")):
        assert hkdf(un(v["dek"]), f"mr/{label}/v1") == un(v[key])

for v in load("aad"):
    assert place(v) == un(v["aad"])

for v in load("field"):
    try:
        plain = gcm_open(field_key(un(v["dek"]), v["place"]["field"]), place(v["place"]), un(v["sealed"]))
        assert v["opens"] and plain == un(v["plain"])
    except InvalidTag:
        assert not v["opens"]

for v in load("row"):
    dek = un(v["dek"])
    try:
        dv, rv, fields, head, tag = parse(un(v["packed"]))
    except Malformed:
        assert v["result"] == "malformed", v["title"]
        continue
    ids = [v[n] for n in ("practice", "patient", "table", "record")]
    over = text("mr-row-1") + b"".join(map(text, ids)) + head
    over += b"".join(u8(len(n)) + n + u64(fv) + sealed[-16:] for n, fv, sealed in fields)
    if not hmac.compare_digest(mac(hkdf(dek, "mr/mac/v1"), over), tag):
        assert v["result"] == "tampered", v["title"]
        continue
    assert v["result"] == "ok" and over == un(v["mac_input"]) and (dv, rv) == (v["dek_version"], v["version"])
    got = []
    for n, fv, sealed in fields:
        p = dict(zip(("practice", "patient", "table", "record"), ids), field=n.decode(), field_version=fv, dek_version=dv)
        got.append({"name": n.decode(), "version": fv, "plain": gcm_open(field_key(dek, n.decode()), place(p), sealed).hex()})
    assert got == v.get("fields", [])

p, d = load("keys").values()
aad = text("mr-practice-key-1") + text(p["practice"]) + text(p["purpose"]) + u32(p["version"])
assert aad == un(p["aad"]) and keeper_unwrap(un(p["root_key"]), "root", un(p["wrapped"]), aad) == un(p["key"])
ids = text(d["practice"]) + text(d["patient"]) + u32(d["dek_version"]) + u32(d["kek_version"])
outer, inner = text("mr-dek-outer-1") + ids + u64(d["epoch"]), text("mr-dek-inner-1") + ids
assert (outer, inner) == (un(d["outer_aad"]), un(d["inner_aad"]))
box = keeper_unwrap(un(d["epoch_key"]), f"epoch-{d['epoch']}", un(d["wrapped"]), outer)
assert gcm_open(un(d["kek"]), inner, box) == un(d["dek"])

v = load("reason")
aad = text("mr-reason-1") + text(v["practice"]) + u32(v["version"]) + text(v["event"])
sealed = un(v["sealed"])
assert aad == un(v["aad"]) and sealed[:5] == u8(1) + u32(v["version"])
assert gcm_open(hkdf(un(v["practice_key"]), "mr/reason/v1"), aad, sealed[5:]).decode() == v["text"]

v = load("index")
for t in v["tags"]:
    sub = hkdf(un(v["practice_key"]), "bi/v1/patient/" + t["field"])
    assert sub == un(t["subkey"]) and mac(sub, t["value"].encode())[:8] == un(t["tag"])
for t in v["digests"]:
    parts = b"".join(u64(len(un(x))) + un(x) for x in t["parts"])
    assert mac(hkdf(un(v["practice_key"]), "digest/v1/" + t["domain"]), parts) == un(t["digest"])

for v in load("codec"):
    b = un(v["encoded"])
    if b[0] == 0:
        assert b[1:] == un(v["plain"])
    else:  # the zstd frame itself needs a library; its frame here says the same length
        assert b[0] == 1 and b[1:5] == u32(len(un(v["plain"]))) and b[5:9] == un("28b52ffd")

print("all vectors agree")
