#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A second verifier of MediRecord's audit exports, on Python's own library alone.

    verify.py POLICY EXPORT...

It hashes every entry anew, rebuilds the RFC 6962 tree, checks the signatures of
the log and of its witnesses, and names each entry that is not as it was sealed.
Exit codes: 0 clean, 1 could not be verified, 2 wrong usage, 3 tampered.
"""
import base64, calendar, gzip, hashlib, json, sys

COLUMNS = ("version epoch tx event_id occurred_at recorded_at parent_id actor_issuer actor_subject actor_practice "
           "patient_id patient_practice action resource_type resource_id outcome code break_glass ctx_nonce ctx_mac "
           "detail nonce").split()

# Ed25519 (RFC 8032), verification only: slow, and nothing to trust but this.
P, Q = 2**255 - 19, 2**252 + 27742317777372353535851937790883648493
D, I = -121665 * pow(121666, -1, P) % P, pow(2, (P - 1) // 4, P)

def point(b):
    sign, y = divmod(int.from_bytes(b, "little"), 2**255)
    xx = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(xx, (P + 3) // 8, P)
    x = x if x * x % P == xx else x * I % P
    x = x if x & 1 == sign else P - x
    return None if y >= P or x * x % P != xx else (x, y, 1, x * y % P)

def add(a, b):
    e, f = (a[1] - a[0]) * (b[1] - b[0]) % P, (a[1] + a[0]) * (b[1] + b[0]) % P
    g, h = 2 * a[3] * b[3] * D % P, 2 * a[2] * b[2] % P
    return ((f - e) * (h - g) % P, (h + g) * (f + e) % P, (h - g) * (h + g) % P, (f - e) * (f + e) % P)

def times(n, p, out=(0, 1, 1, 0)):
    return times(n >> 1, add(p, p), add(out, p) if n & 1 else out) if n else out

def signed(public, message, signature):
    a, r, s, base = point(public), point(signature[:32]), int.from_bytes(signature[32:], "little"), point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    if len(signature) != 64 or a is None or r is None or s >= Q:
        return False
    k = int.from_bytes(hashlib.sha512(signature[:32] + public + message).digest(), "little") % Q
    u, v = times(s, base), add(r, times(k, a))
    return (u[0] * v[2] - v[0] * u[2]) % P == 0 and (u[1] * v[2] - v[1] * u[2]) % P == 0

def vkey(text):  # name+hash+base64(algorithm, public key); the hash names the key on a signature line
    name, _, rest = text.partition("+")
    key = base64.b64decode(rest.partition("+")[2])
    return name, hashlib.sha256(name.encode() + b"\n" + key).digest()[:4], key[0], key[1:]

def head(policy, note):
    """Returns (origin, size, root) of a note that the policy is content with."""
    logs, members, quorum = [], {}, "none"
    for words in (l.split() for l in open(policy, encoding="utf-8") if l.strip() and l.strip()[0] != "#"):
        logs += [vkey(words[1])] if words[0] == "log" else []
        if words[0] == "witness":
            members[words[1]] = vkey(words[2])
        elif words[0] == "group":
            members[words[1]] = ({"any": 1, "all": len(words) - 3}.get(words[2]) or int(words[2]), words[3:])
        elif words[0] == "quorum":
            quorum = words[1]
    text, found = note.rpartition("\n\n")[0] + "\n", set()
    for line in note.rpartition("\n\n")[2].splitlines():
        name, sig = line.split(" ")[1], base64.b64decode(line.split(" ")[2])
        for n, h, alg, public in logs + [m for m in members.values() if len(m) == 4]:
            stamped = b"cosignature/v1\ntime %d\n" % int.from_bytes(sig[4:12], "big") + text.encode()
            if (n, h) == (name, sig[:4]) and (alg == 1 and signed(public, text.encode(), sig[4:]) or alg == 4 and signed(public, stamped, sig[12:])):
                found.add((n, h))
    met = lambda m: m == "none" or ((members[m][:2] in found) if len(members[m]) == 4 else sum(map(met, members[m][1])) >= members[m][0])
    origin, size, root = text.split("\n")[:3]
    if not any(l[0] == origin and l[:2] in found for l in logs) or not met(quorum):
        raise ValueError("the log has not signed, or too few witnesses have cosigned")
    return origin, int(size), base64.b64decode(root)

def leaf(entry):  # SHA-256 of 0 and the canonical bytes: each column after its length
    out = b"\x00"
    for text in ["mr-audit-v1"] + [entry[c] for c in COLUMNS]:
        out += b"\xff\xff\xff\xff" if text is None else len(text.encode()).to_bytes(4, "big") + text.encode()
    return hashlib.sha256(out).digest()

def push(stack, at, level, h):  # adds a whole subtree at the right; the stack holds (level, hash)
    while stack and stack[-1][0] == level and (at >> level) & 1:
        h, level = hashlib.sha256(b"\x01" + stack.pop()[1] + h).digest(), level + 1
    stack.append((level, h))

def subtrees(begin, end):
    while begin < end:
        level = min((end - begin).bit_length() - 1, (begin & -begin).bit_length() - 1 if begin else 62)
        yield begin, level
        begin += 1 << level

def once(pairs):  # an object in which no name stands twice, so that all read the same in it
    if len(dict(pairs)) < len(pairs):
        raise ValueError("a line that says two things")
    return dict(pairs)

def begin(month, after=0):  # of a month, in microseconds since 1970
    n = int(month[:4]) * 12 + int(month[5:]) - 1 + after
    return calendar.timegm((n // 12, n % 12 + 1, 1, 0, 0, 0)) * 10**6

def strange(file, month, *times):  # whether an entry of that month cannot stand in the file between entries of these times
    start, end, hour = begin(file), begin(file, 1), 3600 * 10**6
    before, after = begin(month, 1) == start, begin(month) == end
    return not times or not (before and min(times) < start + hour or after and max(times) > end - hour)

def verify(policy, path):
    found, seen, waiting = [], [], []
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as f:
        h = json.loads(f.readline(), object_pairs_hook=once)
        stack, place, end = [], h["from"] if h["format"] == "medirecord-audit-export/1" else None, None
        for (at, level), x in zip(subtrees(0, h["from"]), h["left"], strict=True):
            push(stack, at, level, base64.b64decode(x))
        for line in f:
            l = json.loads(line, object_pairs_hook=once)
            if "end" in l:
                end = l["count"]
                break
            found += [f"entry {place}: stands {l['i']} in its place: missing or reordered"] * (l["i"] != place)
            if "entry" not in l:
                waiting.append((place, l["month"]))
            elif set(l["entry"]) != set(COLUMNS) or base64.b64encode(leaf(l["entry"])).decode() != l["leaf"]:
                found.append(f"entry {l['i']}, id {l['entry'].get('event_id')}: altered")
            else:
                now = [int(l["entry"]["recorded_at"])]
                found += [f"entry {i}: kept back as one of {m}" for i, m in waiting if strange(h["month"], m, *seen, *now)]
                seen, waiting = now, []
            push(stack, place, 0, base64.b64decode(l["leaf"]))
            place = max(place, l["i"]) + 1
        found += ["the file is cut off, or has more or fewer lines than it says"] * (end != h["to"] - h["from"] or place != h["to"] or f.readline() != "")
        found += [f"entry {i}: kept back as one of {m}" for i, m in waiting if strange(h["month"], m, *seen)]
        for (at, level), x in zip(subtrees(h["to"], h["size"]), h["right"], strict=True):
            push(stack, at, level, base64.b64decode(x))
    root = stack.pop()[1] if stack else hashlib.sha256().digest()
    while stack:
        root = hashlib.sha256(b"\x01" + stack.pop()[1] + root).digest()
    found += ["its hashes do not lead to the checkpoint's root: something was rewritten together with its hash"] * (
        head(policy, h["checkpoint"]) != (h["origin"], h["size"], root))
    print(*(f"{path}: {x}" for x in found + [f"{'tampered' if found else 'clean'}, entries {h['from']} to {h['to'] - 1} of {h['origin']}"]), sep="\n")
    return 3 if found else 0

if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(print(__doc__) or 2)
    codes = []
    for name in sys.argv[2:]:
        try:
            codes.append(verify(sys.argv[1], name))
        except Exception as e:  # whatever the file makes go wrong, the others are verified
            codes.append(print(f"{name}: could not be verified: {e}") or 1)
    sys.exit(max(codes))
