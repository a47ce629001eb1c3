// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"bytes"
	"testing"

	"github.com/medirecord/medirecord/internal/med"
)

func TestACursorIsBoundToItsListAndItsCaller(t *testing.T) {
	t.Parallel()
	type query struct{ From, Action string }
	caller := med.Caller{Issuer: "iss", Subject: "admin-1", Practice: "north", Session: "one"}
	list := listing{"audit_logs", query{"2026-03-01", "read"}}
	bond := func(l listing, change func(*med.Caller)) []byte {
		c := caller
		change(&c)
		b, err := l.bond(&c)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	same := func(*med.Caller) {}
	want := bond(list, same)
	if !bytes.Equal(bond(list, func(c *med.Caller) { c.Session, c.MFA = "two", med.MFAFresh }), want) {
		t.Error("a new session of the same person cannot read on")
	}
	for name, got := range map[string][]byte{
		"another issuer":    bond(list, func(c *med.Caller) { c.Issuer = "other" }),
		"another subject":   bond(list, func(c *med.Caller) { c.Subject = "admin-2" }),
		"another practice":  bond(list, func(c *med.Caller) { c.Practice = "south" }),
		"parts moved":       bond(list, func(c *med.Caller) { c.Issuer, c.Subject = "issadmin", "-1" }),
		"another route":     bond(listing{"user_logs", list.Query}, same),
		"another filter":    bond(listing{"audit_logs", query{"2026-03-02", "read"}}, same),
		"a filter less":     bond(listing{"audit_logs", query{"2026-03-01", ""}}, same),
		"filters the other": bond(listing{"audit_logs", query{"read", "2026-03-01"}}, same),
	} {
		if bytes.Equal(got, want) {
			t.Errorf("%s has the same bond", name)
		}
	}
}
