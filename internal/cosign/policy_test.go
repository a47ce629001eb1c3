// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "log.example/audit/1"

// logKey is a log's signer with its verifier key.
func logKey(t testing.TB, name string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := note.NewSigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

// witnessKey is a witness's signer with its verifier key.
func witnessKey(t testing.TB, name string) (note.Signer, string) {
	t.Helper()
	skey, vkey, err := note.GenerateKey(nil, name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := cosignature.NewSignerForCosignatureV1(skey)
	if err != nil {
		t.Fatal(err)
	}
	vkey, err = cosignature.VKeyToCosignatureV1(vkey)
	if err != nil {
		t.Fatal(err)
	}
	return s, vkey
}

func sign(t testing.TB, c Checkpoint, signers ...note.Signer) []byte {
	t.Helper()
	b, err := note.Sign(&note.Note{Text: c.String()}, signers...)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func parse(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestQuorum(t *testing.T) {
	t.Parallel()
	signer, logV := logKey(t, origin)
	names := []string{"x1", "x2", "x3", "y1", "y2"}
	witnesses, lines := map[string]note.Signer{}, "log "+logV+" https://log.example/\n"
	for _, n := range names {
		s, v := witnessKey(t, "witness.example/"+n)
		witnesses[n] = s
		lines += "witness " + n + "\t" + v + "  https://" + n + ".example/w\n"
	}
	lines += "# two of three here, and one there\n\n group X 2 x1 x2 x3 \ngroup Y any y1 y2\ngroup both all X Y\n"
	c := Checkpoint{Origin: origin, Size: 7, Root: tlog.RecordHash([]byte("r")), Extensions: []string{"patients AAAA"}}
	for _, tc := range []struct {
		quorum, signed string
		want           bool
	}{
		{"none", "", true},
		{"x1", "x1", true},
		{"x1", "x2 x3 y1 y2", false},
		{"X", "x1 x3", true},
		{"X", "x1", false},
		{"Y", "y2", true},
		{"Y", "x1 x2 x3", false},
		{"both", "x1 x2 y1", true},
		{"both", "x1 x2 x3", false},
		{"both", "x1 y1 y2", false},
		{"both", "x1 x2 x3 y1 y2", true},
	} {
		t.Run(tc.quorum+" by "+tc.signed, func(t *testing.T) {
			t.Parallel()
			signers := []note.Signer{signer}
			for _, n := range strings.Fields(tc.signed) {
				signers = append(signers, witnesses[n])
			}
			v, err := parse(t, lines+"quorum "+tc.quorum+"\n").Verify(sign(t, c, signers...))
			if tc.want != (err == nil) || !tc.want && !errors.Is(err, ErrQuorum) {
				t.Fatalf("got %v; want a quorum: %v", err, tc.want)
			}
			if v == nil || v.Size != 7 || v.Root != c.Root || v.Extensions[0] != "patients AAAA" || v.Quorum != tc.want || len(v.LogKeys) != 1 || v.LogKeys[0] != logV {
				t.Fatalf("got %+v; want the checkpoint also without a quorum", v)
			}
			var who []string
			for _, s := range v.Cosigned {
				who = append(who, s.Witness)
				if d := time.Since(s.At); d < -time.Second || d > 10*time.Minute || s.Key != "witness.example/"+s.Witness {
					t.Errorf("got %+v; want now, and the key's name", s)
				}
			}
			if strings.Join(who, " ") != tc.signed {
				t.Errorf("got %v; want %s", who, tc.signed)
			}
		})
	}
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	signer, logV := logKey(t, origin)
	second, secondV := logKey(t, origin)
	other, _ := logKey(t, origin)
	elsewhere, elsewhereV := logKey(t, "log.example/audit/2")
	w, wV := witnessKey(t, "witness.example/w")
	stranger, _ := witnessKey(t, "witness.example/w")
	p := parse(t, "log "+logV+"\nlog "+secondV+"\nlog "+elsewhereV+"\nwitness w "+wV+"\nquorum w\n")
	c := Checkpoint{Origin: origin, Size: 7, Root: tlog.RecordHash([]byte("r"))}
	changed := c
	changed.Size = 8
	swap := func(signed []byte) []byte {
		return []byte(strings.Replace(string(signed), c.String(), changed.String(), 1))
	}
	mixed := append(sign(t, c, signer), []byte(strings.SplitAfter(string(sign(t, changed, w)), "\n\n")[1])...)
	for _, tc := range []struct {
		name   string
		signed []byte
		want   error
	}{
		{"good", sign(t, c, signer, w), nil},
		{"by the other key of the log", sign(t, c, second, w), nil},
		{"by both", sign(t, c, signer, second, w), nil},
		{"with strangers' signatures", sign(t, c, stranger, other, signer, w), nil},
		{"by no key of the log", sign(t, c, other, w), ErrLogSignature},
		{"by witnesses only", sign(t, c, w), ErrLogSignature},
		{"by another log's key", sign(t, c, elsewhere, w), ErrLogSignature},
		{"of an unknown log", sign(t, Checkpoint{Origin: "x", Size: 1}, signer, w), ErrUnknownLog},
		{"changed", swap(sign(t, c, signer, w)), ErrLogSignature},
		{"with a cosignature of another tree", mixed, ErrCosignature},
		{"cosigned by strangers", sign(t, c, signer, stranger), ErrQuorum},
		{"not cosigned", sign(t, c, signer), ErrQuorum},
		{"empty", nil, ErrUnknownLog},
		{"without signatures", []byte(c.String()), ErrMalformed},
		{"too long", append(sign(t, c, signer), make([]byte, MaxCheckpoint)...), ErrMalformed},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := p.Verify(tc.signed); !errors.Is(err, tc.want) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

// A cosignature without a time does not say that the witness knows of no
// larger tree; ML-DSA makes such for subtrees.
func TestACosignatureWithoutATimeDoesNotCount(t *testing.T) {
	t.Parallel()
	signer, logV := logKey(t, origin)
	skey, vkey, err := cosignature.GenerateMLDSAKey("witness.example/pq")
	if err != nil {
		t.Fatal(err)
	}
	pq, err := cosignature.NewMLDSASigner(skey)
	if err != nil {
		t.Fatal(err)
	}
	p := parse(t, "log "+logV+"\nwitness pq "+vkey+"\nquorum pq\n")
	c := Checkpoint{Origin: origin, Size: 7, Root: tlog.RecordHash([]byte("r"))}
	if v, err := p.Verify(sign(t, c, signer, pq)); err != nil || len(v.Cosigned) != 1 {
		t.Fatalf("got %+v, %v; want a good cosignature by ML-DSA", v, err)
	}
	sig, err := pq.SignSubtree(0, origin, 0, 7, c.Root[:])
	if err != nil {
		t.Fatal(err)
	}
	h := pq.KeyHash()
	line := "— " + pq.Name() + " " + base64.StdEncoding.EncodeToString(append([]byte{byte(h >> 24), byte(h >> 16), byte(h >> 8), byte(h)}, sig...)) + "\n"
	if v, err := p.Verify(append(sign(t, c, signer), line...)); !errors.Is(err, ErrQuorum) {
		t.Fatalf("got %+v, %v; want ErrQuorum", v, err)
	}
}

func TestPolicyRefuses(t *testing.T) {
	t.Parallel()
	_, logV := logKey(t, origin)
	_, wV := witnessKey(t, "witness.example/w")
	_, w2V := witnessKey(t, "witness.example/w2")
	renamed := func(vkey string) string { // the same public key under another name
		_, rest, _ := strings.Cut(vkey, "+")
		_, b64, _ := strings.Cut(rest, "+")
		key, _ := base64.StdEncoding.DecodeString(b64)
		s, err := note.NewEd25519VerifierKey("other.example", ed25519.PublicKey(key[1:]))
		if err != nil {
			t.Fatal(err)
		}
		if key[0] == algCosignature {
			s, err = cosignature.VKeyToCosignatureV1(s)
		}
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	asWitness := func(vkey string) string {
		s, err := cosignature.VKeyToCosignatureV1(vkey)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	id := strings.Split(wV, "+")[1]
	wrongID := strings.Replace(wV, id, "00000000", 1)
	two := "witness a " + wV + "\nwitness b " + w2V + "\n"
	for _, tc := range []struct{ name, text, want string }{
		{"no quorum", two, "no quorum line"},
		{"two quorums", two + "quorum a\nquorum b\n", "line 4: a second quorum"},
		{"an unknown quorum", two + "quorum c\n", "not defined above"},
		{"a quorum before its witness", "quorum a\n" + two, "not defined above"},
		{"a group of itself", two + "group g any g\nquorum g\n", "not defined above"},
		{"a member listed twice", two + "group g 2 a a\nquorum g\n", "listed twice"},
		{"a member of two groups", two + "group g all a b\ngroup h any a g\nquorum h\n", "listed twice"},
		{"a name defined twice", two + "group a any b\nquorum a\n", "defined twice"},
		{"a witness called none", "witness none " + wV + "\nquorum none\n", "taken by the specification"},
		{"a group called none", two + "group none any a\nquorum none\n", "taken by the specification"},
		{"none in a group", two + "group g any none\nquorum g\n", "not defined above"},
		{"a threshold of zero", two + "group g 0 a b\nquorum g\n", "1 to 2"},
		{"a threshold above the members", two + "group g 3 a b\nquorum g\n", "1 to 2"},
		{"a negative threshold", two + "group g -1 a b\nquorum g\n", "1 to 2"},
		{"a threshold with a sign", two + "group g +1 a b\nquorum g\n", "1 to 2"},
		{"an empty group", two + "group g all\nquorum g\n", "want `group"},
		{"a witness's key twice", "witness a " + wV + "\nwitness b " + renamed(wV) + "\nquorum a\n", "line 2: the key of a witness appears twice"},
		{"a log's key twice", "log " + logV + "\nlog " + renamed(logV) + "\nquorum none\n", "appears twice"},
		{"a witness with the log's key", "log " + logV + "\nwitness a " + asWitness(renamed(logV)) + "\nquorum a\n", "a log above has it"},
		{"a witness with a log's kind of key", "witness a " + logV + "\nquorum a\n", "kind 1"},
		{"a log with a witness's kind of key", "log " + wV + "\nquorum none\n", "kind 4"},
		{"a key with the wrong id", "witness a " + wrongID + "\nquorum a\n", "not a verifier key"},
		{"a key that is none", "log hello\nquorum none\n", "not a verifier key"},
		{"an unknown kind of key", "log x+00000000+" + base64.StdEncoding.EncodeToString(append([]byte{99}, make([]byte, 32)...)) + "\nquorum none\n", "kind 99"},
		{"a URL that is none", "witness a " + wV + " witness.example\nquorum a\n", "not a URL"},
		{"a URL with a password", "witness a " + wV + " https://u:p@witness.example/\nquorum a\n", "not a URL"},
		{"a comment behind the line", "witness a " + wV + " https://w.example/ # ours\nquorum a\n", "want `witness"},
		{"an unknown word", "hello\n", `"hello" is none of`},
		{"a carriage return", "quorum none\r\n", "control character"},
		{"a NUL", "quorum none\x00\n", "control character"},
		{"too much", strings.Repeat("#\n", maxPolicy), "more than"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if _, err := ParsePolicy([]byte(tc.text)); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v; want %q", err, tc.want)
			}
		})
	}
}

func TestVerifierKey(t *testing.T) {
	t.Parallel()
	for range 20 { // keys with and without plus signs in their base64
		skey, vkey, err := note.GenerateKey(nil, origin)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := VerifierKey(skey); err != nil || got != vkey {
			t.Errorf("got %s, %v; want %s", got, err, vkey)
		}
	}
	for _, bad := range []string{"", "PRIVATE+KEY+x+00000000+AAAA", "PRIVATE+KEY+secret"} {
		if got, err := VerifierKey(bad); err == nil || strings.Contains(err.Error(), "secret") {
			t.Errorf("%q: got %s, %v", bad, got, err)
		}
	}
}

// The specification asks for at least 32 logs, 32 witnesses and 32 groups.
func TestPolicyOfSomeSize(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	for i := range 32 {
		_, l := logKey(t, fmt.Sprintf("log.example/%d", i))
		_, w := witnessKey(t, fmt.Sprintf("witness.example/%d", i))
		fmt.Fprintf(&b, "log %s\nwitness w%d %s\n", l, i, w)
		if i == 0 {
			b.WriteString("group g0 all w0\n")
		} else {
			fmt.Fprintf(&b, "group g%d 1 g%d w%d\n", i, i-1, i)
		}
	}
	b.WriteString("quorum g31\n")
	p := parse(t, b.String())
	if len(p.Logs()) != 32 || len(p.Witnesses()) != 32 {
		t.Errorf("got %d logs and %d witnesses, want 32 of each", len(p.Logs()), len(p.Witnesses()))
	}
}

func TestParseCheckpoint(t *testing.T) {
	t.Parallel()
	root := base64.StdEncoding.EncodeToString(make([]byte, 32))
	loose := strings.Repeat("A", 42) + "B=" // the same 32 bytes, written otherwise
	for text, want := range map[string]bool{
		"o\n0\n" + root + "\n":                   true,
		"o\n7\n" + root + "\nextension\n":        true,
		"o\n7\n" + root + "\na\nb\n":             true,
		"o\n4611686018427387904\n" + root + "\n": true,
		"o\n4611686018427387905\n" + root + "\n": false, // beyond what tlog can reckon with
		"o\n9223372036854775807\n" + root + "\n": false,
		"o\n07\n" + root + "\n":                  false,
		"o\n-7\n" + root + "\n":                  false,
		"o\n+7\n" + root + "\n":                  false,
		"\n7\n" + root + "\n":                    false,
		"o\n7\n" + root:                          false,
		"o\n7\n" + root + "\nextension":          false,
		"o\n7\n" + root + "\n\n":                 false,
		"o\n7\n" + root + "\na\n\nb\n":           false,
		"o\n7\n" + loose + "\n":                  false,
		"o\n7\nAAAA\n":                           false,
		"o\xff\n7\n" + root + "\n":               false,
		"":                                       false,
	} {
		if c, err := ParseCheckpoint(text); (err == nil) != want {
			t.Errorf("%q: got %+v, %v; want it taken: %v", text, c, err, want)
		}
	}
}

func FuzzParsePolicy(f *testing.F) {
	_, logV := logKey(f, origin)
	_, wV := witnessKey(f, "witness.example/w")
	f.Add("log " + logV + "\nwitness w " + wV + " https://w.example/\ngroup g all w\nquorum g\n")
	f.Add("quorum none")
	f.Add("# x\n\ngroup a 1 b\n")
	f.Fuzz(func(t *testing.T, text string) {
		p, err := ParsePolicy([]byte(text))
		if err != nil {
			return
		}
		none := func(int) bool { return false }
		if all := func(int) bool { return true }; !p.quorum.met(all) {
			t.Error("all witnesses together are no quorum")
		}
		if p.quorum.met(none) != !p.NeedsWitnesses() {
			t.Error("nobody is a quorum where one is needed")
		}
		_, _ = p.Verify([]byte(origin + "\n1\n"))
	})
}

func FuzzParseRequest(f *testing.F) {
	f.Add([]byte("old 0\n\norigin\n1\nAAAA\n\n— x y\n"))
	f.Add(Request{Old: 3, Proof: tlog.TreeProof{{1}, {2}}, Checkpoint: []byte("x")}.Marshal())
	f.Add([]byte("old 01\n\nx"))
	f.Fuzz(func(t *testing.T, body []byte) {
		r, err := ParseRequest(body)
		if err != nil {
			return
		}
		if got := r.Marshal(); string(got) != string(body) {
			t.Errorf("got %q back from %q", got, body)
		}
		if r.Old < 0 || r.Old > MaxSize || len(r.Proof) > MaxProof {
			t.Errorf("%+v is out of range", r)
		}
	})
}

func FuzzParseCheckpoint(f *testing.F) {
	f.Add(Checkpoint{Origin: origin, Size: 7, Extensions: []string{"x"}}.String())
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseCheckpoint(text)
		if err == nil && c.String() != text {
			t.Errorf("got %q back from %q", c.String(), text)
		}
	})
}
