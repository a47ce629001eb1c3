// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/medirecord/medirecord/internal/med"
)

func TestClean(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, in, want string }{
		{"plain text stays", "Mozilla/5.0", "Mozilla/5.0"},
		{"valid UTF-8 stays", "Zoë", "Zoë"},
		{"invalid UTF-8 is replaced", "a\xff\xfeb", "a\uFFFDb"},
		{"NUL is replaced", "a\x00b", "a\uFFFDb"},
		{"a line break is replaced", "a\r\nlevel=ERROR", "a\uFFFD\uFFFDlevel=ERROR"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if got := clean(tc.in, 255); got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
}

func FuzzClean(f *testing.F) {
	f.Add("é" + strings.Repeat("x", 300))
	f.Add("\xff\x00\r\n")
	f.Fuzz(func(t *testing.T, s string) {
		e := New(time.Unix(0, 0), &med.Caller{Subject: s, Origin: med.Origin{UserAgent: s}}, "read", "patient", s)
		e.Clean()
		for _, got := range []string{e.Actor.Subject, e.ResourceID, e.Detail.UserAgent} {
			if !utf8.ValidString(got) || strings.ContainsAny(got, "\x00\r\n") || len(got) > maxText {
				t.Fatalf("not clean: %q", got)
			}
		}
		if len(e.Actor.Subject) > maxName {
			t.Fatalf("%d bytes of subject", len(e.Actor.Subject))
		}
		text, err := e.DetailJSON()
		if err != nil {
			t.Fatal(err)
		}
		d, err := ParseDetail(text)
		if err != nil || d.UserAgent != e.Detail.UserAgent {
			t.Fatalf("the detail does not come back: %v", err)
		}
	})
}

func TestAnEntryThatForgetsItsOutcomeHasFailed(t *testing.T) {
	t.Parallel()
	if e := New(time.Now(), &med.Caller{}, "read", "patient", "p"); e.Outcome != Failure {
		t.Errorf("got %q, want %q", e.Outcome, Failure)
	}
}

// Whatever string an entry holds, a client may have written: Clean must know
// them all. A new field that it does not know fails here.
func TestCleanKnowsEveryString(t *testing.T) {
	t.Parallel()
	const dirty = "a\x00\r\n\xff"
	// Not a client's: parsed by the sidecar, or our own words.
	ours := map[string]bool{"Roles": true, "MFA": true, "Clear": true, "Masked": true, "Hidden": true, "BreakGlass": true, "Counts": true, "ID": true, "Parent": true, "Outcome": true, "Checkpoint": true}
	e := New(time.Now(), &med.Caller{}, "", "", "")
	seen := map[string]bool{}
	var walk func(v reflect.Value, visit func(name string, v reflect.Value))
	walk = func(v reflect.Value, visit func(string, reflect.Value)) {
		for i := range v.NumField() {
			name, f := v.Type().Field(i).Name, v.Field(i)
			switch {
			case ours[name]:
				seen[name] = true
			case f.Kind() == reflect.String:
				visit(name, f)
			case f.Kind() == reflect.Struct && f.Type() != reflect.TypeFor[time.Time]():
				walk(f, visit)
			}
		}
	}
	n := 0
	walk(reflect.ValueOf(e).Elem(), func(_ string, v reflect.Value) { v.SetString(strings.Repeat(dirty, 1000)); n++ })
	e.Clean()
	walk(reflect.ValueOf(e).Elem(), func(name string, v reflect.Value) {
		if s := v.String(); !utf8.ValidString(s) || strings.ContainsAny(s, "\x00\r\n") || len(s) > maxText || s == "" {
			t.Errorf("%s is not cleaned: %d bytes", name, len(s))
		}
	})
	if n < 20 || len(seen) != len(ours) {
		t.Errorf("%d strings, and of our own %v", n, seen)
	}
}

func TestAChildIsAnEntryOfItsOwn(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.FixedZone("east", 3600))
	c := med.Caller{
		Issuer: "i", Subject: "s", Practice: "p", Roles: []med.Role{med.RoleNurse}, Session: "sid", TokenID: "jti", MFA: med.MFADone, OnBehalfOf: "root",
		Purpose: "TREAT", Credential: "secret", Emergency: "secret reason",
		Origin: med.Origin{IP: "192.0.2.1", UserAgent: "ua", Origin: "o", RequestID: "r", ClientID: "c", TraceID: "t"},
	}
	e := New(now, &c, "read", "patient", "p-001")
	e.Code = "not_found"
	child := e.Child(now.Add(time.Second), "break_glass", AccessGranted)
	if child.ID == e.ID || child.Parent != e.ID || child.Nonce == e.Nonce || child.Nonce == [16]byte{} || e.Parent != "" {
		t.Error("a child shares its parent's id or nonce")
	}
	if child.Action != "break_glass" || child.Outcome != AccessGranted || child.Code != "" || child.Actor != e.Actor || child.ResourceID != "p-001" {
		t.Errorf("got %+v", child)
	}
	if got := e.OccurredAt; got.Location() != time.UTC || got.Nanosecond() != 123_000_000 || !child.OccurredAt.Equal(got.Add(time.Second)) {
		t.Errorf("occurred at %s, the child at %s", got, child.OccurredAt)
	}
	text, err := e.DetailJSON()
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"roles":["nurse"],"session":"sid","token_id":"jti","mfa":"done","on_behalf_of":"root","purpose":"TREAT","ip":"192.0.2.1",` +
		`"user_agent":"ua","origin":"o","request_id":"r","client_request_id":"c","trace_id":"t"}`
	if text != want {
		t.Errorf("got %s\nwant %s", text, want)
	}
	back, err := ParseDetail(text)
	if err != nil || !reflect.DeepEqual(back, e.Detail) {
		t.Errorf("got %+v back, %v", back, err)
	}
	e.Detail.UserAgent = "<script>&\u2028"
	if text, err := e.DetailJSON(); err != nil || !strings.Contains(text, `"<script>&`) || strings.Contains(text, "\n") {
		t.Errorf("got %s, %v", text, err)
	}
	if _, err := ParseDetail("{"); err == nil {
		t.Error("half a detail reads")
	}
}
