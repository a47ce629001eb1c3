// SPDX-License-Identifier: Apache-2.0

package audit

import (
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
