// SPDX-License-Identifier: Apache-2.0

package cosign

import (
	"bytes"
	"cmp"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	cosignature "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
)

// Limits of a policy. The specification asks for at least 32 of each.
const (
	maxPolicy = 64 << 10 // bytes
	maxNames  = 128      // logs, witnesses and groups together
)

// Kinds of signature of c2sp.org/signed-note.
const (
	algEd25519     = 1
	algCosignature = 4
	algMLDSA44     = 6
)

// Log is a log of a policy, under one of its keys.
type Log struct {
	Origin string
	VKey   string
	URL    string // "" when the policy gives none
}

// Witness is a witness of a policy.
type Witness struct {
	Name string // in this policy only
	Key  string // the key's own name, as on the signature lines
	VKey string
	URL  string // its submission prefix; "" when the policy gives none

	verifier note.Verifier
}

// Policy says which checkpoints are good: those that one of its logs signed
// and a quorum of its witnesses cosigned. ParsePolicy makes it; nothing
// changes it.
type Policy struct {
	logs      []Log
	logKeys   []note.Verifier
	witnesses []Witness
	quorum    *member // nil is none
}

// member is a witness or a group.
type member struct {
	witness int // -1 for a group
	need    int
	of      []*member
}

func (m *member) met(signed func(witness int) bool) bool {
	switch {
	case m == nil:
		return true
	case m.witness >= 0:
		return signed(m.witness)
	}
	n := 0
	for _, x := range m.of {
		if x.met(signed) {
			n++
		}
	}
	return n >= m.need
}

// ParsePolicy reads a policy file. It takes what c2sp.org/tlog-policy says and
// no more: a log is signed for with Ed25519, a witness with a timestamped
// cosignature, no key appears twice, and no witness has a log's key. Its
// errors name the line.
func ParsePolicy(text []byte) (*Policy, error) {
	if len(text) > maxPolicy {
		return nil, fmt.Errorf("the policy has more than %d bytes", maxPolicy)
	}
	if i := bytes.IndexFunc(text, func(r rune) bool { return r < 0x20 && r != '\t' && r != '\n' || r == 0x7f }); i >= 0 {
		return nil, fmt.Errorf("policy line %d: it has a control character", 1+bytes.Count(text[:i], []byte("\n")))
	}
	r := policyReader{p: &Policy{}, names: map[string]*member{}, keys: map[string]string{}, ids: map[string]string{}, member: map[string]bool{}}
	n := 0
	for line := range strings.SplitSeq(string(text), "\n") {
		n++
		if err := r.line(strings.FieldsFunc(line, func(c rune) bool { return c == ' ' || c == '\t' })); err != nil {
			return nil, fmt.Errorf("policy line %d: %w", n, err)
		}
	}
	if !r.decided {
		return nil, errors.New("the policy has no quorum line: end it with `quorum <name>`, or `quorum none` to ask for no cosignature")
	}
	return r.p, nil
}

type policyReader struct {
	p       *Policy
	names   map[string]*member
	keys    map[string]string // public key → what has it
	ids     map[string]string // key name and id → what has it
	member  map[string]bool   // names that are in a group
	decided bool
}

func (r *policyReader) line(words []string) error {
	if len(words) == 0 || strings.HasPrefix(words[0], "#") {
		return nil
	}
	if len(r.p.logs)+len(r.names) >= maxNames && words[0] != "quorum" {
		return fmt.Errorf("more than %d logs, witnesses and groups", maxNames)
	}
	switch words[0] {
	case "log":
		return r.log(words[1:])
	case "witness":
		return r.witness(words[1:])
	case "group":
		return r.group(words[1:])
	case "quorum":
		return r.quorum(words[1:])
	}
	return fmt.Errorf("%q is none of log, witness, group, quorum", words[0])
}

func (r *policyReader) log(words []string) error {
	if len(words) < 1 || len(words) > 2 {
		return errors.New("want `log <vkey> [<url>]`")
	}
	v, err := r.key("a log", words[0], algEd25519)
	if err != nil {
		return err
	}
	address, err := optionalURL(words[1:])
	if err != nil {
		return err
	}
	r.p.logs = append(r.p.logs, Log{Origin: v.Name(), VKey: words[0], URL: address})
	r.p.logKeys = append(r.p.logKeys, v)
	return nil
}

func (r *policyReader) witness(words []string) error {
	if len(words) < 2 || len(words) > 3 {
		return errors.New("want `witness <name> <vkey> [<url>]`")
	}
	v, err := r.key("a witness", words[1], algCosignature, algMLDSA44)
	if err != nil {
		return err
	}
	address, err := optionalURL(words[2:])
	if err != nil {
		return err
	}
	r.p.witnesses = append(r.p.witnesses, Witness{Name: words[0], Key: v.Name(), VKey: words[1], URL: address, verifier: v})
	return r.define(words[0], &member{witness: len(r.p.witnesses) - 1})
}

func (r *policyReader) group(words []string) error {
	if len(words) < 3 {
		return errors.New("want `group <name> all|any|<k> <name>...`")
	}
	g := &member{witness: -1}
	for _, name := range words[2:] {
		m, known := r.names[name]
		if !known {
			return fmt.Errorf("%q is not defined above", name)
		}
		// So that each witness counts towards the quorum in one way only.
		if r.member[name] {
			return fmt.Errorf("%q is listed twice as a member", name)
		}
		r.member[name] = true
		g.of = append(g.of, m)
	}
	switch k := words[1]; k {
	case "all":
		g.need = len(g.of)
	case "any":
		g.need = 1
	default:
		n, err := strconv.Atoi(k)
		if err != nil || n < 1 || n > len(g.of) || strconv.Itoa(n) != k {
			return fmt.Errorf("the threshold must be all, any, or 1 to %d", len(g.of))
		}
		g.need = n
	}
	return r.define(words[0], g)
}

func (r *policyReader) define(name string, m *member) error {
	if name == "none" {
		return errors.New("the name none is taken by the specification")
	}
	if r.names[name] != nil {
		return fmt.Errorf("%q is defined twice", name)
	}
	r.names[name] = m
	return nil
}

func (r *policyReader) quorum(words []string) error {
	switch {
	case len(words) != 1:
		return errors.New("want `quorum <name>`")
	case r.decided:
		return errors.New("a second quorum line")
	case words[0] != "none" && r.names[words[0]] == nil:
		return fmt.Errorf("%q is not defined above", words[0])
	}
	r.p.quorum, r.decided = r.names[words[0]], true
	return nil
}

// key reads a verifier key of one of the kinds that nobody else here has.
func (r *policyReader) key(what, vkey string, kinds ...byte) (note.Verifier, error) {
	v, kind, public, err := parseVKey(vkey)
	if err != nil {
		return nil, err
	}
	if !slices.Contains(kinds, kind) {
		return nil, fmt.Errorf("the key of %s is of kind %d, want %v (c2sp.org/signed-note)", what, kind, kinds)
	}
	if owner := r.keys[public]; owner != "" {
		return nil, fmt.Errorf("the key of %s appears twice: %s has it already", what, owner)
	}
	// Signature lines tell keys apart by name and id alone.
	id := fmt.Sprintf("%s+%08x", v.Name(), v.KeyHash())
	if owner := r.ids[id]; owner != "" {
		return nil, fmt.Errorf("%s has the same key name and id already: give one of the two another key", owner)
	}
	r.keys[public], r.ids[id] = what+" above", what+" above"
	return v, nil
}

// parseVKey reads a verifier key and returns its kind and its public key.
func parseVKey(vkey string) (v note.Verifier, kind byte, public string, err error) {
	bad := errors.New("not a verifier key: want <name>+<8 hexadecimal digits>+<base64>")
	name, rest, _ := strings.Cut(vkey, "+")
	id, encoded, _ := strings.Cut(rest, "+")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil || len(key) < 2 || name == "" {
		return nil, 0, "", bad
	}
	switch key[0] {
	case algEd25519:
		v, err = note.NewVerifier(vkey)
	case algCosignature, algMLDSA44:
		v, err = cosignature.NewVerifierForCosignatureV1(vkey)
	default:
		return nil, 0, "", fmt.Errorf("keys of kind %d are not known here: want 1 (Ed25519), 4 or 6 (cosignature by Ed25519 or ML-DSA-44)", key[0])
	}
	// The library takes any id for a cosigner: a typing error would be a witness
	// whose signatures are silently unknown.
	if err != nil || fmt.Sprintf("%08x", v.KeyHash()) != id {
		return nil, 0, "", bad
	}
	return v, key[0], string(key[1:]), nil
}

// VerifierKey returns the verifier key of a log's signing key, as
// golang.org/x/mod/sumdb/note writes both. Errors do not quote the key.
func VerifierKey(skey string) (string, error) {
	bad := errors.New("not a signing key: want PRIVATE+KEY+<name>+<id>+<base64> of an Ed25519 key")
	s, err := note.NewSigner(skey)
	if err != nil {
		return "", bad
	}
	parts := strings.SplitN(skey, "+", 5) // base64 has plus signs too
	key, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
	if err != nil || len(key) != 1+ed25519.SeedSize || key[0] != algEd25519 {
		return "", bad
	}
	return note.NewEd25519VerifierKey(s.Name(), ed25519.NewKeyFromSeed(key[1:]).Public().(ed25519.PublicKey))
}

func optionalURL(words []string) (string, error) {
	if len(words) == 0 {
		return "", nil
	}
	u, err := url.Parse(words[0])
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
		return "", errors.New("the last word is not a URL such as https://witness.example/w1")
	}
	return words[0], nil
}

// Logs returns the logs, one for each of their keys, in the order of the file.
func (p *Policy) Logs() []Log { return slices.Clone(p.logs) }

// Witnesses returns the witnesses in the order of the file.
func (p *Policy) Witnesses() []Witness { return slices.Clone(p.witnesses) }

// NeedsWitnesses reports whether the quorum asks for any cosignature.
func (p *Policy) NeedsWitnesses() bool { return p.quorum != nil }

// Cosignature says that a witness of the policy has cosigned, and when.
type Cosignature struct {
	Witness string // its name in the policy
	Key     string
	At      time.Time
}

// Verified is a checkpoint and who signed it.
type Verified struct {
	Checkpoint
	LogKeys  []string      // verifier keys of the log whose signature is good
	Cosigned []Cosignature // in the order of the policy
	Quorum   bool          // enough of them
}

// What Verify reports, found with errors.Is.
var (
	ErrMalformed    = errors.New("not a signed checkpoint")
	ErrUnknownLog   = errors.New("the policy has no log of that origin")
	ErrLogSignature = errors.New("the log's own signature is missing or wrong")
	ErrCosignature  = errors.New("a cosignature of a witness of the policy is wrong")
	ErrQuorum       = errors.New("too few witnesses of the policy have cosigned")
)

// Verify checks a signed checkpoint against the policy. With ErrQuorum it
// returns what is there nevertheless: the log's signature is good then, and
// those who have cosigned are named. With any other error it returns nil.
func (p *Policy) Verify(signed []byte) (*Verified, error) {
	v, err := p.VerifyLog(signed)
	if err != nil {
		return nil, err
	}
	if !v.Quorum {
		return v, fmt.Errorf("%w: %d of %d, and the quorum needs more", ErrQuorum, len(v.Cosigned), len(p.witnesses))
	}
	return v, nil
}

// VerifyLog checks as Verify does, but asks for no quorum: for a checkpoint
// that has yet to be cosigned.
func (p *Policy) VerifyLog(signed []byte) (*Verified, error) {
	v, _, err := p.open(signed)
	return v, err
}

// open verifies all signatures of keys of the policy, and returns the note too.
func (p *Policy) open(signed []byte) (*Verified, *note.Note, error) {
	origin, _, _ := bytes.Cut(signed, []byte("\n"))
	keys := p.keysOf(string(origin))
	if len(signed) > MaxCheckpoint {
		return nil, nil, ErrMalformed
	}
	if len(keys) == 0 {
		return nil, nil, ErrUnknownLog
	}
	n, err := note.Open(signed, note.VerifierList(p.verifiers(keys)...))
	if err != nil {
		return nil, nil, p.because(err)
	}
	v := &Verified{}
	if v.Checkpoint, err = ParseCheckpoint(n.Text); err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	for _, s := range n.Sigs {
		if i := slices.IndexFunc(keys, func(i int) bool { return signedBy(s, p.logKeys[i]) }); i >= 0 {
			v.LogKeys = append(v.LogKeys, p.logs[keys[i]].VKey)
			continue
		}
		p.count(v, s)
	}
	if len(v.LogKeys) == 0 {
		return nil, nil, ErrLogSignature
	}
	slices.SortFunc(v.Cosigned, func(a, b Cosignature) int { return cmp.Compare(p.place(a.Witness), p.place(b.Witness)) })
	v.Quorum = p.quorum.met(func(w int) bool {
		return slices.ContainsFunc(v.Cosigned, func(c Cosignature) bool { return c.Witness == p.witnesses[w].Name })
	})
	return v, n, nil
}

// count adds a cosignature, unless it tells no time: by the specification it
// then does not say that the witness knows of no larger tree.
func (p *Policy) count(v *Verified, s note.Signature) {
	at, err := cosignature.CoSigV1Timestamp(s)
	if err != nil || at.Unix() <= 0 {
		return
	}
	for _, w := range p.witnesses {
		if signedBy(s, w.verifier) {
			v.Cosigned = append(v.Cosigned, Cosignature{Witness: w.Name, Key: w.Key, At: at.UTC()})
		}
	}
}

func (p *Policy) place(witness string) int {
	return slices.IndexFunc(p.witnesses, func(w Witness) bool { return w.Name == witness })
}

// keysOf returns which keys sign for the origin.
func (p *Policy) keysOf(origin string) (out []int) {
	for i, l := range p.logs {
		if l.Origin == origin {
			out = append(out, i)
		}
	}
	return out
}

func (p *Policy) verifiers(keys []int) (out []note.Verifier) {
	for _, i := range keys {
		out = append(out, p.logKeys[i])
	}
	for _, w := range p.witnesses {
		out = append(out, w.verifier)
	}
	return out
}

// because says what is wrong with a note that does not open.
func (p *Policy) because(err error) error {
	var unsigned *note.UnverifiedNoteError
	var invalid *note.InvalidSignatureError
	switch {
	case errors.As(err, &unsigned):
		return ErrLogSignature
	case errors.As(err, &invalid):
		for _, w := range p.witnesses {
			if w.Key == invalid.Name && w.verifier.KeyHash() == invalid.Hash {
				return fmt.Errorf("%w: witness %s", ErrCosignature, w.Name)
			}
		}
		return ErrLogSignature
	}
	return ErrMalformed
}

func signedBy(s note.Signature, v note.Verifier) bool {
	return s.Name == v.Name() && s.Hash == v.KeyHash()
}
