// SPDX-License-Identifier: Apache-2.0

package med_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/med"
)

func TestPHIPrintsAsNothing(t *testing.T) {
	t.Parallel()
	const secret = "Alice Smith"
	p := med.Patient{Name: med.Name{Family: secret, Given: []med.PHI{secret}, Text: secret}, SSN: secret}
	c := med.Caller{Credential: secret, Emergency: secret}
	for _, v := range []any{p, &p, p.Name, p.SSN, c, &c, []med.PHI{secret}, map[string]med.PHI{"x": secret}, med.Invalid.Because(fmt.Errorf("field %s", p.SSN))} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T"} {
			got := fmt.Sprintf(verb, v)
			if strings.Contains(got, secret) || strings.Contains(got, fmt.Sprintf("%x", secret)) || strings.Contains(got, fmt.Sprintf("%X", secret)) {
				t.Errorf("%s of %T tells the value: %s", verb, v, got)
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewJSONHandler(&log, nil)).InfoContext(t.Context(), "x", slog.Any("v", v))
		slog.New(slog.NewTextHandler(&log, nil)).InfoContext(t.Context(), "x", slog.Any("v", v))
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(log.String()+string(b), secret) {
			t.Errorf("slog or JSON of %T tells the value", v)
		}
	}
	if med.PHI(secret).Reveal() != secret {
		t.Error("Reveal does not")
	}
}

func TestIDs(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		in string
		ok bool
	}{
		{"p-001", true},
		{"024b1b9b-57bc-4fae-9839-fa0656246b41", true},
		{strings.Repeat("a", 64), true},
		{strings.Repeat("a", 65), false},
		{"", false},
		{"a b", false},
		{"a/b", false},
		{"a|b", false},
		{"*", false},
		{"é", false},
		{"a\x00", false},
		{"a\n", false},
	} {
		_, err := med.ParsePatientID(tc.in)
		if (err == nil) != tc.ok {
			t.Errorf("%q: got %v, want ok=%v", tc.in, err, tc.ok)
		}
		if err != nil && (med.KindOf(err) != med.Invalid || tc.in != "" && tc.in != "*" && strings.Contains(err.Error(), tc.in)) {
			t.Errorf("%q: the error is of another kind or repeats the value: %v", tc.in, err)
		}
	}
}

func TestUUIDsAreVersion7AndOrdered(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`)
	now := time.UnixMilli(1_700_000_000_000)
	seen := map[string]bool{}
	last := ""
	for i := range 1000 {
		u := med.NewUUID(now.Add(time.Duration(i) * time.Millisecond))
		if !form.MatchString(u) {
			t.Fatalf("%q is not a UUID version 7", u)
		}
		if seen[u] || u < last {
			t.Fatalf("%q is not new, or not after %q", u, last)
		}
		seen[u], last = true, u
	}
	for i := range 4000 { // of one millisecond
		u := med.NewUUID(now.Add(time.Second + time.Duration(i)*250))
		if !form.MatchString(u) || u <= last {
			t.Fatalf("%q is not a UUID version 7 after %q", u, last)
		}
		last = u
	}
}

func TestBreakGlassReason(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, in string
		want     *med.ErrorKind
	}{
		{"the guide's", "Patient in ER, consent unreachable", nil},
		{"ten characters", "0123456789", nil},
		{"ten characters of two bytes", strings.Repeat("é", 10), nil},
		{"500 characters", strings.Repeat("é", 500), nil},
		{"blanks around do not count", "  0123456789  ", nil},
		{"missing", "", med.BreakGlassReasonRequired},
		{"blank", " \t ", med.BreakGlassReasonRequired},
		{"nine characters", "012345678", med.Invalid},
		{"dots only", "..........", med.Invalid},
		{"letters nobody sees", strings.Repeat("\u3164", 12), med.Invalid},
		{"501 characters", strings.Repeat("x", 501), med.Invalid},
		{"a line break", "0123456789\nlevel=INFO", med.Invalid},
		{"NUL", "0123456789\x00", med.Invalid},
		{"a bidirectional override", "0123456789\u202e", med.Invalid},
		{"a zero-width space", "0123456789\u200b", med.Invalid},
		{"a line separator", "0123456789\u2028x", med.Invalid},
		{"invalid UTF-8", "0123456789\xff", med.Invalid},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := med.CheckReason(med.PHI(tc.in))
			if tc.want == nil && (err != nil || got.Reveal() != strings.TrimSpace(tc.in)) {
				t.Errorf("got %q, %v", got.Reveal(), err)
			}
			if tc.want != nil && med.KindOf(err) != tc.want {
				t.Errorf("got %v, want %s", err, tc.want.Slug)
			}
		})
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	t.Run("whatever has no kind is internal", func(t *testing.T) {
		t.Parallel()
		if med.KindOf(errors.New("x")) != med.Internal || med.CodeOf(errors.New("x")) != "internal" {
			t.Error("an unknown error has another kind than internal")
		}
	})
	t.Run("a kind survives wrapping", func(t *testing.T) {
		t.Parallel()
		err := fmt.Errorf("reading: %w", med.NotFound.New("No such patient."))
		if med.KindOf(err) != med.NotFound || !errors.Is(err, med.NotFound.New("")) || errors.Is(err, med.Forbidden.New("")) {
			t.Errorf("got %v", med.KindOf(err).Slug)
		}
	})
	t.Run("an event is carried, and the original is left alone", func(t *testing.T) {
		t.Parallel()
		orig := med.Forbidden.New("No.").Coded("other_practice")
		marked := med.WithEvent(orig, "e1")
		if id, ok := med.EventOf(marked); !ok || id != "e1" || orig.Event != "" || med.CodeOf(marked) != "other_practice" {
			t.Errorf("got %v", marked)
		}
	})
	t.Run("the problem table is whole", func(t *testing.T) {
		t.Parallel()
		slugs := map[string]bool{}
		for _, k := range med.ErrorKinds {
			_, known := med.Categories[k.Category]
			if slugs[k.Slug] || k.Status < 400 || k.Status > 599 || k.Title == "" || k.Detail == "" || !known {
				t.Errorf("row %q is not whole", k.Slug)
			}
			slugs[k.Slug] = true
		}
	})
}

func TestRolesAndShows(t *testing.T) {
	t.Parallel()
	if r, ok := med.ParseRole("provider"); !ok || r != med.RoleClinician {
		t.Errorf("provider: got %q, want clinician", r)
	}
	if _, ok := med.ParseRole("root"); ok {
		t.Error("an unknown role is a role")
	}
	for in, want := range map[string]med.Show{"reveal": med.Reveal, "mask": med.Mask, "hide": med.Hide, "": med.Hide, "REVEAL": med.Hide} {
		if got := med.ParseShow(in); got != want {
			t.Errorf("%q: got %v, want %v", in, got, want)
		}
	}
}
