// SPDX-License-Identifier: Apache-2.0

package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

// GrantClaims is a break-glass grant as the sidecar signs it: one user, one
// patient, one session, for a limited time. PostgreSQL stores it with the
// signature, and honours the row only while both agree.
type GrantClaims struct {
	ID         string
	Issuer     string
	Subject    string
	Session    string
	Patient    med.PatientID
	ReasonCode string // one of med.ReasonCodes
	// Times are kept to the millisecond.
	OpenedAt, ExpiresAt time.Time
}

const useGrant = "grant"

// MaxGrant is the longest a grant may last (rules, 4).
const MaxGrant = 4 * time.Hour

var (
	errGrant      = errors.New("grant: needs an id, a person, a session, a patient and a known reason code")
	errGrantTimes = errors.New("grant: must end after it begins, and within the limit")
	errGrantField = errors.New("grant: a field is too long, not UTF-8, or has a control character")
)

// SignGrant signs the grant. It reports an error for an incomplete one, for
// one longer than MaxGrant, and for strings that Mint would refuse.
func (m *Minter) SignGrant(g GrantClaims) (string, error) {
	switch lasts := g.ExpiresAt.Sub(g.OpenedAt); {
	case !m.usable:
		return "", errMinterKey
	case slices.Contains([]string{g.ID, g.Issuer, g.Subject, g.Session, string(g.Patient)}, ""):
		return "", errGrant
	case !slices.Contains(med.ReasonCodes, g.ReasonCode) || !isPatient(string(g.Patient)):
		return "", errGrant
	case lasts <= 0 || lasts > MaxGrant:
		return "", errGrantTimes
	}
	s := m.buffers.Get().(*scratch) //nolint:forcetypeassert // the pool holds nothing else
	defer m.buffers.Put(s)
	var ok bool
	if s.payload, ok = g.appendTo(s.payload[:0]); !ok {
		return "", errGrantField
	}
	return m.sign(s), nil
}

func (g *GrantClaims) appendTo(b []byte) ([]byte, bool) {
	all := true
	b = append(b, `{"use":"`+useGrant+`",`...)
	for _, f := range [...]struct{ name, value string }{
		{"id", g.ID},
		{"iss", g.Issuer},
		{"sub", g.Subject},
		{"sid", g.Session},
		{"patient", string(g.Patient)},
		{"reason", g.ReasonCode},
	} {
		var ok bool
		b, ok = field(b, f.name, f.value)
		all = all && ok
	}
	b = appendNumber(b, "opened", g.OpenedAt.UnixMilli())
	return closed(appendNumber(b, "exp", g.ExpiresAt.UnixMilli())), all
}

// VerifyGrant returns the grant that was signed with one of the keys and has
// not expired at now. It reports as Verify does.
func VerifyGrant(keys []ContextKey, signed string, now time.Time) (GrantClaims, error) {
	payload, err := open(keys, signed)
	if err != nil {
		return GrantClaims{}, err
	}
	if useOf(payload) != useGrant {
		return GrantClaims{}, refuse(ReasonWrongUse)
	}
	var w struct {
		ID      string        `json:"id"`
		Issuer  string        `json:"iss"`
		Subject string        `json:"sub"`
		Session string        `json:"sid"`
		Patient med.PatientID `json:"patient"`
		Reason  string        `json:"reason"`
		Opened  int64         `json:"opened"`
		Expires int64         `json:"exp"`
	}
	if json.Unmarshal(payload, &w) != nil {
		return GrantClaims{}, refuse(ReasonMalformed)
	}
	g := GrantClaims{
		ID: w.ID, Issuer: w.Issuer, Subject: w.Subject, Session: w.Session, Patient: w.Patient, ReasonCode: w.Reason,
		OpenedAt: time.UnixMilli(w.Opened).UTC(), ExpiresAt: time.UnixMilli(w.Expires).UTC(),
	}
	if again, ok := g.appendTo(nil); !ok || !bytes.Equal(again, payload) {
		return GrantClaims{}, refuse(ReasonMalformed)
	}
	if !now.Before(g.ExpiresAt) {
		return GrantClaims{}, refuse(ReasonExpired)
	}
	return g, nil
}
