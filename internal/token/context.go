// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// Context is what the sidecar tells PostgreSQL about one call: who, what, and
// the one patient it is about. Row-level security decides with nothing else.
type Context struct {
	Issuer   string         `json:"iss"`
	Subject  string         `json:"sub"`
	Roles    []string       `json:"roles"` // in force
	Practice med.PracticeID `json:"practice,omitempty"`
	Action   string         `json:"action"` // patient.read, search, import, ...
	// Patient is the one patient; "*" for a service action on one practice.
	Patient string `json:"patient,omitempty"`
	// Self is the caller's own patient id.
	Self         string `json:"self,omitempty"`
	Grant        string `json:"grant,omitempty"`     // id of the break-glass grant
	GrantExpires int64  `json:"grant_exp,omitempty"` // Unix milliseconds
	// GrantMany: the grant was opened beyond what care needs, and pages as P1.
	GrantMany bool `json:"many,omitempty"`
	// Factor is how lately who opens the grant had proved a second factor.
	Factor med.MFA `json:"factor,omitempty"`
	Admin  bool    `json:"admin,omitempty"` // the role admin, with MFA in force
	// Strict: the database gives a row only against a ticket, an entry about this
	// context that another transaction has committed.
	Strict  bool   `json:"strict,omitempty"`
	MaxRows int    `json:"max_rows,omitempty"`
	Service string `json:"svc,omitempty"` // of unattended work
	Session string `json:"sid,omitempty"`
	Nonce   string `json:"nonce"` // set by Mint
	Expires int64  `json:"exp"`   // set by Mint; Unix milliseconds
}

const (
	useContext = "context"
	// MaxContextTTL and MaxServiceTTL bound the life of a context (rules, 6):
	// a stolen one must be worth little.
	MaxContextTTL = 10 * time.Second
	MaxServiceTTL = 60 * time.Second
	maxRoles      = 16
	// Patient of a service context that is about a whole practice.
	wholePractice = "*"
)

// The reasons why Mint refuses. None quotes a value.
var (
	errMinterKey = errors.New("context: the minter has no usable key")
	errTTL       = errors.New("context: the time to live is not positive or above the limit")
	errContext   = errors.New("context: needs an action and a subject or a service, few roles, and no negative number")
	errPatient   = errors.New(`context: patient, self or practice is not an id, or "*" outside a service action on one practice`)
	errField     = errors.New("context: a field is too long, not UTF-8, or has a control character")
)

// Mint signs the context for ttl and returns it with its nonce, which the trail
// keeps, and its MAC. It reports an error for a ttl above the limit, a
// context that names nobody or nothing, a "*" that is not a service's, ids that
// are none, and strings that are too long, not UTF-8 or have control characters.
func (m *Minter) Mint(c Context, ttl time.Duration) (signed, nonce, mac string, err error) {
	if err := m.mintable(&c, ttl); err != nil {
		return "", "", "", err
	}
	c.Nonce = newNonce()
	c.Expires = m.now().Add(ttl).UnixMilli()

	s := m.buffers.Get().(*scratch) //nolint:forcetypeassert // the pool holds nothing else
	defer m.buffers.Put(s)
	var ok bool
	if s.payload, ok = c.appendTo(s.payload[:0]); !ok {
		return "", "", "", errField
	}
	signed = m.sign(s)
	return signed, c.Nonce, signed[len(signed)-macLen:], nil
}

func (m *Minter) mintable(c *Context, ttl time.Duration) error {
	limit := MaxContextTTL
	if c.Service != "" {
		limit = MaxServiceTTL
	}
	switch {
	case !m.usable:
		return errMinterKey
	case ttl < time.Millisecond || ttl > limit:
		return errTTL
	case c.Action == "" || c.Subject == "" && c.Service == "" || len(c.Roles) > maxRoles || c.MaxRows < 0 || c.GrantExpires < 0:
		return errContext
	case !c.idsFit():
		return errPatient
	}
	return nil
}

// idsFit checks what row-level security compares: ids, and the one word that
// is none.
func (c *Context) idsFit() bool {
	if c.Practice != "" {
		if _, err := med.ParsePracticeID(string(c.Practice)); err != nil {
			return false
		}
	}
	patients := []string{c.Patient, c.Self}
	if c.Patient == wholePractice {
		if c.Service == "" || c.Practice == "" {
			return false
		}
		patients = patients[1:]
	}
	for _, id := range patients {
		if id != "" && !isPatient(id) {
			return false
		}
	}
	return true
}

func isPatient(id string) bool {
	_, err := med.ParsePatientID(id)
	return err == nil
}

// appendTo writes the context as canonical JSON, by hand because it happens on
// every call. It reports false for a field that must not be signed.
func (c *Context) appendTo(b []byte) ([]byte, bool) {
	b = append(b, `{"use":"`+useContext+`",`...)
	b, ok1 := field(b, "iss", c.Issuer)
	b, ok2 := field(b, "sub", c.Subject)
	b, ok3 := appendRoles(b, c.Roles)
	ok := ok1 && ok2 && ok3
	text := func(name, value string, always bool) {
		if value != "" || always {
			var good bool
			b, good = field(b, name, value)
			ok = ok && good
		}
	}
	number := func(name string, n int64) {
		if n != 0 {
			b = appendNumber(b, name, n)
		}
	}
	flag := func(name string, is bool) {
		if is {
			b = append(b, `"`+name+`":true,`...)
		}
	}
	text("practice", string(c.Practice), false)
	text("action", c.Action, true)
	text("patient", c.Patient, false)
	text("self", c.Self, false)
	text("grant", c.Grant, false)
	number("grant_exp", c.GrantExpires)
	flag("many", c.GrantMany)
	text("factor", string(c.Factor), false)
	flag("admin", c.Admin)
	flag("strict", c.Strict)
	number("max_rows", int64(c.MaxRows))
	text("svc", c.Service, false)
	text("sid", c.Session, false)
	text("nonce", c.Nonce, true)
	return closed(appendNumber(b, "exp", c.Expires)), ok
}

func appendRoles(b []byte, roles []string) ([]byte, bool) {
	all := true
	b = append(b, `"roles":[`...)
	for i, r := range roles {
		if i > 0 {
			b = append(b, ',')
		}
		var ok bool
		b, ok = quoted(b, r)
		all = all && ok
	}
	return append(b, `],`...), all
}

func appendNumber(b []byte, name string, n int64) []byte {
	b = append(b, '"')
	b = append(b, name...)
	b = append(b, `":`...)
	b = strconv.AppendInt(b, n, 10)
	return append(b, ',')
}

func newNonce() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // crypto/rand.Read does not fail (Go 1.24)
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// Verify returns the context that was signed with one of the keys and has not
// expired at now. It reports an *Error: malformed, unknown_key, bad_signature,
// wrong_use or expired. PostgreSQL does the same with its own code.
func Verify(keys []ContextKey, signed string, now time.Time) (Context, error) {
	payload, err := open(keys, signed)
	if err != nil {
		return Context{}, err
	}
	if use := useOf(payload); use != useContext {
		return Context{}, refuse(ReasonWrongUse)
	}
	var c Context
	if json.Unmarshal(payload, &c) != nil {
		return Context{}, refuse(ReasonMalformed)
	}
	// Only what Mint would have written: no second meaning, no member unread.
	if again, ok := c.appendTo(nil); !ok || !bytes.Equal(again, payload) {
		return Context{}, refuse(ReasonMalformed)
	}
	if now.UnixMilli() >= c.Expires {
		return Context{}, refuse(ReasonExpired)
	}
	return c, nil
}
