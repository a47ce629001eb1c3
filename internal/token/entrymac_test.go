// SPDX-License-Identifier: Apache-2.0

package token

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

const theEvent = "0193739e-6f00-7000-8000-000000000001"

// entryOf is what the honest entry of the context says.
func entryOf(c *Context) EntryClaims {
	return EntryClaims{Nonce: "nonce-1", Event: theEvent, Issuer: c.Issuer, Subject: c.Subject, Practice: string(c.Practice), Patient: c.Patient}
}

func TestEntryMAC(t *testing.T) {
	t.Parallel()
	key := testKey("k1", 7)
	m := NewMinter(key, atNoon)
	a := NewAttester([]ContextKey{testKey("k0", 1), key})
	c := fullContext()
	mac := m.SignEntry(&c, "nonce-1", theEvent)

	t.Run("the entry of the context attests, until it is long over", func(t *testing.T) {
		t.Parallel()
		for _, after := range []time.Duration{-entrySkew, 0, time.Second, MaxEntryAge} {
			if err := a.Attest(entryOf(&c), mac, noon.Add(after)); err != nil {
				t.Errorf("recorded %s later: %v", after, err)
			}
		}
		for _, after := range []time.Duration{-entrySkew - time.Second, MaxEntryAge + time.Second, 24 * time.Hour} {
			wantReason(t, a.Attest(entryOf(&c), mac, noon.Add(after)), ReasonExpired)
		}
	})
	t.Run("it says under which key, when and for what", func(t *testing.T) {
		t.Parallel()
		if want := fmt.Sprintf("e1.k1.%d.patient.read.", noon.Unix()); !strings.HasPrefix(mac, want) || len(mac) != len(want)+64 {
			t.Errorf("got %s, want %s and 64 digits", mac, want)
		}
	})
	t.Run("no column can be another's", func(t *testing.T) {
		t.Parallel()
		for name, change := range map[string]func(*EntryClaims){
			"nonce":    func(e *EntryClaims) { e.Nonce = "nonce-2" },
			"event":    func(e *EntryClaims) { e.Event = strings.Replace(theEvent, "01", "02", 1) },
			"no event": func(e *EntryClaims) { e.Event = "" },
			"issuer":   func(e *EntryClaims) { e.Issuer += "/" },
			"subject":  func(e *EntryClaims) { e.Subject = "dr-other" },
			"practice": func(e *EntryClaims) { e.Practice = "" },
			"patient":  func(e *EntryClaims) { e.Patient = "p-2" },
			"a byte moved from one to the next": func(e *EntryClaims) {
				e.Practice, e.Patient = e.Practice+e.Patient[:1], e.Patient[1:]
			},
			"a service": func(e *EntryClaims) { e.Issuer, e.Subject = "medirecord", "service:import" },
		} {
			e := entryOf(&c)
			change(&e)
			if err := a.Attest(e, mac, noon); ReasonOf(err) != ReasonBadSignature {
				t.Errorf("%s: got %v, want bad_signature", name, err)
			}
		}
	})
	t.Run("no part of the text can be another's", func(t *testing.T) {
		t.Parallel()
		for _, tc := range []struct{ text, reason string }{
			{strings.Replace(mac, "patient.read", "audit.read", 1), ReasonBadSignature},
			{strings.Replace(mac, "e1.k1.", "e1.k0.", 1), ReasonBadSignature},
			{strings.Replace(mac, "e1.k1.", "e1.k9.", 1), ReasonUnknownKey},
			{strings.Replace(mac, "e1.", "e2.", 1), ReasonMalformed},
			{strings.Replace(mac, fmt.Sprint(noon.Unix()), fmt.Sprint(noon.Unix()+1), 1), ReasonBadSignature},
			{strings.Replace(mac, fmt.Sprint(noon.Unix()), "soon", 1), ReasonMalformed},
			{mac[:len(mac)-1], ReasonMalformed},
			{strings.ToUpper(mac), ReasonMalformed},
			{"", ReasonMalformed},
			{"e1.k1", ReasonMalformed},
			{strings.Repeat("0", 64), ReasonMalformed},
		} {
			if err := a.Attest(entryOf(&c), tc.text, noon); ReasonOf(err) != tc.reason {
				t.Errorf("%q: got %v, want %s", tc.text, err, tc.reason)
			}
		}
	})
	t.Run("the key is not the context's", func(t *testing.T) {
		t.Parallel()
		signed, nonce, contextMAC, err := m.Mint(c, time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(m.SignEntry(&c, nonce, theEvent), contextMAC) || strings.Contains(signed, m.SignEntry(&c, nonce, theEvent)) {
			t.Error("an entry MAC opens the database")
		}
	})
	t.Run("a key that has gone is told from a MAC that is wrong", func(t *testing.T) {
		t.Parallel()
		wantReason(t, NewAttester([]ContextKey{testKey("k2", 2)}).Attest(entryOf(&c), mac, noon), ReasonUnknownKey)
		wantReason(t, NewAttester([]ContextKey{testKey("k1", 2)}).Attest(entryOf(&c), mac, noon), ReasonBadSignature)
	})
	t.Run("a service's context stands for many entries, of that service", func(t *testing.T) {
		t.Parallel()
		s := Context{Issuer: "medirecord", Subject: "service:import", Service: "import", Action: "import", Practice: "north", Patient: "*"}
		mac := m.SignEntry(&s, "nonce-1", "")
		e := EntryClaims{Nonce: "nonce-1", Event: theEvent, Issuer: "medirecord", Subject: "service:import", Patient: "p-1"}
		if err := a.Attest(e, mac, noon); err != nil {
			t.Error(err)
		}
		e.Subject = "service:operator"
		wantReason(t, a.Attest(e, mac, noon), ReasonBadSignature)
		e.Issuer, e.Subject = testIssuer, "service:import"
		wantReason(t, a.Attest(e, mac, noon), ReasonBadSignature)
	})
	t.Run("a minter without a key signs nothing", func(t *testing.T) {
		t.Parallel()
		if got := NewMinter(ContextKey{KID: "k1"}, atNoon).SignEntry(&c, "n", theEvent); got != "" {
			t.Errorf("got %s", got)
		}
	})
}

func BenchmarkSignEntry(b *testing.B) {
	c := fullContext()
	m := NewMinter(testKey("k1", 7), atNoon)
	b.ReportAllocs()
	for b.Loop() {
		m.SignEntry(&c, "nonce-1", theEvent)
	}
}

func BenchmarkAttest(b *testing.B) {
	c := fullContext()
	mac := NewMinter(testKey("k1", 7), atNoon).SignEntry(&c, "nonce-1", theEvent)
	a := NewAttester([]ContextKey{testKey("k1", 7)})
	b.ReportAllocs()
	for b.Loop() {
		if err := a.Attest(entryOf(&c), mac, noon); err != nil {
			b.Fatal(err)
		}
	}
}
