// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
)

// settled waits until every context that was minted was found entered and the
// sidecar was told so, and checks that nothing was flagged on the way.
func (w *watched) settled(t *testing.T) {
	t.Helper()
	w.looked(t)
	w.ahead.Store(int64(2 * time.Minute)) // whatever was not entered is overdue
	w.eventually(t, "nothing waits", func() bool {
		f, err := w.gate.Minted(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		told, err := f.Next()
		if err != nil {
			t.Fatal(err)
		}
		return len(told.Mints) == 0 && w.minted.Stats().Waiting == 0
	})
	w.ahead.Store(0)
	same(t, w.flags(t), nil)
}

const disclosure = `{"recipient":{"name":"County Health Department"},"basis":"public_health","purpose":"Notifiable disease",
	"description":"Laboratory report","disclosed_on":"2026-03-01"}`

func TestHonestWorkRaisesNoAlarm(t *testing.T) {
	t.Parallel()
	for name, strict := range map[string]bool{"reads as they are by default": false, "strict reads": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			honestWork(t, newWatched(t, medtest.Options{StrictReads: strict}))
		})
	}
}

func honestWork(t *testing.T, w *watched) {
	alice := w.Patient(t, medtest.North, medtest.Alice())
	eve := w.Patient(t, medtest.South, med.Patient{Name: med.Name{Text: "Eve Southern"}})
	t.Run("every role, every answer", func(t *testing.T) {
		for _, role := range med.Roles {
			tok := w.Of(t, role, medtest.North)
			if role == med.RolePatient {
				tok = w.PatientOf(t, alice, medtest.North)
			}
			for _, id := range []med.PatientID{alice, eve, "nobody"} {
				w.Get(t, tok, "/patients/"+string(id))
				w.Get(t, tok, "/patients/"+string(id), "X-Break-Glass-Reason", "Unconscious in the emergency room")
				for _, path := range []string{
					"/patients/%s/audit", "/api/v1/patients/%s/accesses", "/api/v1/patients/%s/disclosures", "/api/v1/patients/%s/disclosures/accounting",
				} {
					w.Get(t, tok, fmt.Sprintf(path, id))
				}
				w.Post(t, tok, "/api/v1/patients/"+string(id)+"/disclosures", disclosure)
			}
			w.Get(t, tok, "/api/v1/audit/logs")
			w.Get(t, tok, "/api/v1/audit/logs/the-nurse")
		}
		var kinds string
		medtest.Scan(t, w.super, []any{&kinds}, `select string_agg(distinct action, ' ') from audit.event where ctx_nonce is not null and outcome = 'success'`)
		for _, k := range []string{"read ", "read_audit", "disclose", "read_disclosures", "import"} {
			if !strings.Contains(kinds, k) {
				t.Errorf("nobody did %s: only %s", k, kinds)
			}
		}
		w.settled(t)
	})
	t.Run("callers who hang up, at any moment", func(t *testing.T) {
		caller := w.Caller(t, w.Of(t, med.RoleClinician, medtest.North))
		var calls sync.WaitGroup
		for i := range 200 {
			calls.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i*20)*time.Microsecond)
				defer cancel()
				_, _ = w.Chart.ReadPatient(ctx, caller, alice)
			})
		}
		calls.Wait()
		w.settled(t)
	})
	t.Run("an answer of the sidecar that does not arrive", func(t *testing.T) {
		caller := w.Caller(t, w.Of(t, med.RoleClinician, medtest.North))
		e := audit.New(time.Now(), &caller, "read", "patient", string(alice))
		e.Patient, e.Code = alice, "sidecar_unavailable"
		if _, err := w.Gate.May(t.Context(), &caller, gate.Ask{Action: "read", Resource: "patient", Patient: alice, Event: e.ID}); err != nil {
			t.Fatal(err)
		}
		if err := w.Trail.Append(e); err != nil { // as the API does, which knows of no context
			t.Fatal(err)
		}
		w.settled(t)
	})
	t.Run("a call that asks twice", func(t *testing.T) {
		caller := w.Caller(t, w.Of(t, med.RoleClinician, medtest.North))
		e := audit.New(time.Now(), &caller, "read", "patient", string(alice))
		e.Patient, e.Outcome = alice, audit.Success
		for range 2 {
			r, err := w.Gate.May(t.Context(), &caller, gate.Ask{Action: "read", Resource: "patient", Patient: alice, Event: e.ID})
			if err != nil {
				t.Fatal(err)
			}
			e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
		}
		if err := w.Trail.Append(e); err != nil {
			t.Fatal(err)
		}
		w.settled(t)
	})
	t.Run("a sealer that lags", func(t *testing.T) {
		w.Get(t, w.Of(t, med.RoleClinician, medtest.North), "/patients/"+string(alice))
		w.ahead.Store(int64(2 * time.Minute)) // nothing is sealed meanwhile
		w.eventually(t, "it is found in the trail as it is", func() bool { return w.minted.Stats().Waiting == 0 })
		w.ahead.Store(0)
		w.settled(t)
	})
}

// A worker that is away too long costs what the sidecar has no room for, and
// it is known how much.
func TestWhatTheSidecarDropsIsFlagged(t *testing.T) {
	t.Parallel()
	w := newWatched(t, medtest.Options{Unsettled: 300})
	w.Forged = true
	w.stop()
	caller := w.Caller(t, w.Of(t, med.RoleClinician, medtest.North))
	for range 310 {
		if _, err := w.Gate.May(t.Context(), &caller, gate.Ask{Action: "read", Resource: "patient", Patient: "p-1", Event: event()}); err != nil {
			t.Fatal(err)
		}
	}
	w.start(t)
	same(t, w.flagged(t, 1), []string{"lost 10"})
	w.stop()
	w.start(t)
	w.eventually(t, "the rest waits again", func() bool { return w.minted.Stats().Waiting == 300 })
	w.looked(t)
	same(t, w.flags(t), []string{"lost 10"})
}

// The API lets nothing out without an entry. That it read something and could
// not enter it is known all the same.
func TestATrailThatIsOutIsAnAlarm(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	alice := w.Patient(t, medtest.North, medtest.Alice())
	medtest.Exec(t, w.super, `revoke insert on audit.event from medirecord_trail`)
	if a := w.Get(t, w.Of(t, med.RoleClinician, medtest.North), "/patients/"+string(alice)); a.Status != 503 {
		t.Fatalf("got %d", a.Status)
	}
	w.ahead.Store(int64(61 * time.Second))
	same(t, w.flagged(t, 1), []string{"unentered the-clinician " + string(alice)})
}

func TestAWorkerThatStartsAnewLosesNothing(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	alice := w.Patient(t, medtest.North, medtest.Alice())
	c := w.takenOver(t)
	tok := w.Of(t, med.RoleNurse, medtest.North)
	w.Get(t, tok, "/patients/"+string(alice))
	w.settled(t)

	c.read(t, c.ask(t, alice, event()), alice) // before it is killed
	w.eventually(t, "it waits", func() bool { return w.minted.Stats().Waiting == 1 })
	w.stop()
	c.read(t, c.ask(t, alice, event()), alice) // while it is away
	w.Get(t, tok, "/patients/"+string(alice))
	w.seal(t)
	w.ahead.Store(int64(10 * time.Minute)) // for long
	w.start(t)
	want := []string{"unentered the-clinician " + string(alice), "unentered the-clinician " + string(alice)}
	same(t, w.flagged(t, 2), want)
	w.eventually(t, "the rest is settled", func() bool { return w.minted.Stats().Waiting == 0 })
	w.stop()
	w.start(t) // and what was flagged is flagged once
	w.looked(t)
	same(t, w.flags(t), want)
}

func TestASidecarThatIsAwayHoldsTheWatchAndNothingElse(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	alice := w.Patient(t, medtest.North, medtest.Alice())
	c := w.takenOver(t)
	forged := c.entry(alice, nil)
	r := c.ask(t, alice, forged.ID)
	forged.ContextNonce, forged.ContextMAC, forged.Actor.Subject = r.Nonce, r.MAC, "the-nurse"
	w.looked(t)
	w.Sidecar.Stop()
	c.write(t, forged)
	size := w.seal(t)
	w.eventually(t, "the log tells that nothing is watched", func() bool { return strings.Contains(w.Log.String(), "the trail is not watched") })
	var next int64
	medtest.Scan(t, w.super, []any{&next}, `select next_index from audit.watch`)
	if next >= size || len(w.flags(t)) != 0 {
		t.Errorf("looked at %d of %d, flags %v: without the sidecar nothing can be told", next, size, w.flags(t))
	}
	w.ahead.Store(int64(5 * time.Minute))
	w.eventually(t, "the lag is measured", func() bool { return w.minted.Stats().Lag > time.Minute })
}

func TestManyPatientsAreFlagged(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.Forged = true
	caller := w.Caller(t, w.Of(t, med.RoleClinician, medtest.North))
	for i := range 301 {
		if _, err := w.Gate.May(t.Context(), &caller, gate.Ask{Action: "read", Resource: "patient", Patient: med.PatientID(fmt.Sprintf("p-%d", i)), Event: event()}); err != nil {
			if !errors.Is(err, context.DeadlineExceeded) {
				t.Fatal(err)
			}
		}
	}
	same(t, w.flagged(t, 1), []string{"excess the-clinician 301"})
}
