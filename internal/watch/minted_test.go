// SPDX-License-Identifier: Apache-2.0

package watch_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
	"github.com/medirecord/medirecord/internal/watch"
)

func TestMain(m *testing.M) { medtest.Main(m) }

// watched is a system whose trail is sealed and watched.
type watched struct {
	*medtest.System
	ahead  atomic.Int64 // how far the watch's clock is ahead
	minted *watch.Minted
	super  *pgx.Conn
	log    *medtest.TrailLog
	stop   func()
	db     *postgres.DB
	reader *trail.Reader
	gate   *gate.Gate
}

func newWatched(t *testing.T, opts ...medtest.Options) *watched {
	t.Helper()
	w := &watched{System: medtest.New(t, opts...)}
	w.super, w.log = w.DB.Super(t), w.DB.NewLog(t)
	w.gate = w.OpenGate(t, w.Sidecar.Addrs()[0].String(), "worker")
	ctx := context.WithoutCancel(t.Context())
	var err error
	if w.db, err = postgres.Open(ctx, postgres.Config{URL: w.DB.URL("worker"), Conns: 4, Readers: 1, Deadline: medtest.Patience}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.db.Close)
	if w.reader, err = trail.OpenReader(ctx, w.DB.URL("auditor")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(w.reader.Close)
	w.start(t)
	t.Cleanup(func() { w.stop() })
	return w
}

func (w *watched) now() time.Time { return time.Now().Add(time.Duration(w.ahead.Load())) }

// start starts the watch, as a worker that starts anew does.
func (w *watched) start(t *testing.T) {
	t.Helper()
	m, err := watch.NewMinted(watch.Config{
		Gate: w.gate, DB: w.db, Trail: w.reader, Every: 5 * time.Millisecond, Now: w.now, Log: slog.New(slog.NewJSONHandler(w.Log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	w.minted = m
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { _ = m.Run(ctx) })
	w.stop = func() { cancel(); running.Wait() }
}

// seal seals what is in the trail, and returns how many entries are.
func (w *watched) seal(t *testing.T) int64 {
	t.Helper()
	w.log.Seal(t)
	var size int64
	medtest.Scan(t, w.super, []any{&size}, `select coalesce(max(first_index + n), 0) from audit.batch`)
	return size
}

// looked seals, and waits until the watch has looked at all of it.
func (w *watched) looked(t *testing.T) {
	t.Helper()
	size := w.seal(t)
	w.eventually(t, "all that is sealed was looked at", func() bool {
		var next int64
		medtest.Scan(t, w.super, []any{&next}, `select next_index from audit.watch`)
		return next == size
	})
}

func (w *watched) eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !is(); {
		if time.Now().After(end) {
			t.Fatalf("did not happen: %s\nflags %v, %+v\n%s", what, w.flags(t), w.minted.Stats(), tail(w.Log.String()))
		}
		time.Sleep(2 * time.Millisecond)
	}
}

func tail(s string) string { return s[max(0, len(s)-3000):] }

// flagged waits until so many flags are there, and returns them.
func (w *watched) flagged(t *testing.T, n int) []string {
	t.Helper()
	w.eventually(t, fmt.Sprintf("%d flags", n), func() bool { return len(w.flags(t)) >= n })
	return w.flags(t)
}

// flags are kind, subject, patient and number of each flag, sorted.
func (w *watched) flags(t *testing.T) []string {
	t.Helper()
	rows, err := w.super.Query(context.Background(), `select concat_ws(' ', kind, subject, patient_id, number::text) from audit.flag`)
	if err != nil {
		t.Fatal(err)
	}
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(out)
	return out
}

func same(t *testing.T, got, want []string) {
	t.Helper()
	slices.Sort(want)
	if !slices.Equal(got, want) {
		t.Errorf("flags: got %q, want %q", got, want)
	}
}

// compromised is a taken-over API: it holds the passwords of the app and of
// the trail, and the token of whoever calls it. It does not hold the context
// key.
type compromised struct {
	*watched
	trail *pgx.Conn
	token string
	me    med.Caller
}

func (w *watched) takenOver(t *testing.T) *compromised {
	t.Helper()
	w.Forged = true
	token := w.Of(t, med.RoleClinician, medtest.North)
	return &compromised{watched: w, trail: w.DB.As(t, "trail"), token: token, me: w.Caller(t, token)}
}

// ask has the sidecar mint a context for its live caller and the patient.
func (c *compromised) ask(t *testing.T, p med.PatientID, event med.EventID) *med.Ruling {
	t.Helper()
	r, err := c.Gate.May(t.Context(), &c.me, gate.Ask{Action: "read", Resource: "patient", Patient: p, Event: event})
	if err != nil || r.Context == "" {
		t.Fatalf("no context: %v", err)
	}
	return r
}

// read reads the patient's sealed row, as the API could.
func (c *compromised) read(t *testing.T, r *med.Ruling, p med.PatientID) {
	t.Helper()
	row, err := c.Postgres.Patient(t.Context(), r.Context, "", p)
	if err != nil || len(row.Sealed) == 0 {
		t.Fatalf("the database gave no row: %v", err)
	}
}

// entry is a plausible entry of its live caller's reading.
func (c *compromised) entry(p med.PatientID, r *med.Ruling) *audit.Entry {
	e := audit.New(time.Now(), &c.me, "read", "patient", string(p))
	e.Patient, e.PatientPractice, e.Outcome = p, medtest.North, audit.Success
	if r != nil {
		e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
	}
	return e
}

// write writes the entry with the trail's password: nothing cleans it, and row
// security checks its time only.
func (c *compromised) write(t *testing.T, e *audit.Entry) {
	t.Helper()
	detail, err := e.DetailJSON()
	if err != nil {
		t.Fatal(err)
	}
	medtest.Exec(t, c.trail, `
insert into audit.event (event_id, occurred_at, parent_id, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice,
                         action, resource_type, resource_id, outcome, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
values ($1, $2, nullif($3, '')::uuid, $4, $5, nullif($6, ''), nullif($7, ''), nullif($8, ''), $9, $10, $11, $12, false, nullif($13, ''), nullif($14, ''), $15, $16, 1)`,
		string(e.ID), e.OccurredAt, string(e.Parent), e.Actor.Issuer, e.Actor.Subject, string(e.Actor.Practice), string(e.Patient), string(e.PatientPractice),
		e.Action, e.ResourceType, e.ResourceID, string(e.Outcome), e.ContextNonce, e.ContextMAC, detail, e.Nonce[:])
}

func event() med.EventID { return med.EventID(med.NewUUID(time.Now())) }

func TestACompromisedAPIIsSeen(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	alice := w.Patient(t, medtest.North, medtest.Alice())
	bob := w.Patient(t, medtest.North, med.Patient{Name: med.Name{Text: "Bob Miller"}})
	c := w.takenOver(t)
	nurse := w.Caller(t, w.Of(t, med.RoleNurse, medtest.North))
	w.looked(t)
	same(t, w.flags(t), nil)

	// In each step: what it does, and the flags that are there then.
	var want []string
	step := func(name string, flags []string, do func(t *testing.T)) {
		t.Run(name, func(t *testing.T) {
			do(t)
			w.looked(t)
			want = append(want, flags...)
			same(t, w.flagged(t, len(want)), slices.Clone(want))
		})
	}
	const me = "the-clinician"
	a, b := string(alice), string(bob)

	step("it reads without an entry", []string{"unentered " + me + " " + a}, func(t *testing.T) {
		c.read(t, c.ask(t, alice, event()), alice)
		w.ahead.Add(int64(30 * time.Second)) // and not more: what follows takes its time too
		honest := c.entry(bob, nil)
		r := c.ask(t, bob, honest.ID)
		honest.ContextNonce, honest.ContextMAC = r.Nonce, r.MAC
		c.write(t, honest)
		w.looked(t) // a whole look after half of its minute
		same(t, w.flags(t), nil)
		w.ahead.Add(int64(31 * time.Second)) // a minute is over
	})
	w.ahead.Store(0)
	step("it reads without an entry and does not say for which call", []string{"unentered " + me + " " + b}, func(t *testing.T) {
		c.read(t, c.ask(t, bob, ""), bob)
		w.ahead.Store(int64(61 * time.Second))
	})
	w.ahead.Store(0)
	step("it frames somebody without a context", []string{"mac the-nurse " + a}, func(t *testing.T) {
		e := c.entry(alice, nil)
		e.Actor = audit.Actor{Issuer: nurse.Issuer, Subject: nurse.Subject, Practice: nurse.Practice}
		c.write(t, e)
	})
	step("it frames somebody with a context that it invents", []string{"mac the-nurse " + a, "mac the-nurse " + a}, func(t *testing.T) {
		for _, mac := range []string{strings.Repeat("ab", 32), fmt.Sprintf("e1.test1.%d.patient.read.%s", time.Now().Unix(), strings.Repeat("ab", 32))} {
			e := c.entry(alice, nil)
			e.Actor = audit.Actor{Issuer: nurse.Issuer, Subject: nurse.Subject, Practice: nurse.Practice}
			e.ContextNonce, e.ContextMAC = "W6useeTXhUo1VbHQCbcSXQ", mac
			c.write(t, e)
		}
	})
	step("it frames somebody with its live caller's context", []string{"mac the-nurse " + a, "unentered " + me + " " + a}, func(t *testing.T) {
		e := c.entry(alice, nil)
		r := c.ask(t, alice, e.ID)
		c.read(t, r, alice)
		e.Actor = audit.Actor{Issuer: nurse.Issuer, Subject: nurse.Subject, Practice: nurse.Practice}
		e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
		c.write(t, e)
		w.ahead.Store(int64(61 * time.Second))
	})
	w.ahead.Store(0)
	step("it reads one patient and enters another", []string{"mac " + me + " " + b, "unentered " + me + " " + a}, func(t *testing.T) {
		e := c.entry(bob, nil)
		r := c.ask(t, alice, e.ID)
		c.read(t, r, alice)
		e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
		c.write(t, e)
		w.ahead.Store(int64(61 * time.Second))
	})
	w.ahead.Store(0)
	step("it reads, and says that somebody else's call, or one on somebody else, came to nothing", []string{"unentered " + me + " " + a, "unentered " + me + " " + a}, func(t *testing.T) {
		for _, change := range []func(*audit.Entry){
			func(e *audit.Entry) { e.Patient = bob },
			func(e *audit.Entry) { e.Actor.Subject = nurse.Subject },
		} {
			e := c.entry(alice, nil)
			c.read(t, c.ask(t, alice, e.ID), alice)
			e.Outcome, e.Code = audit.Failure, "cancelled"
			change(e)
			c.write(t, e)
		}
		w.ahead.Store(int64(61 * time.Second))
	})
	w.ahead.Store(0)
	step("it enters one reading twice, and as a part of another call", []string{"mac " + me + " " + a, "mac " + me + " " + a}, func(t *testing.T) {
		e := c.entry(alice, nil)
		r := c.ask(t, alice, e.ID)
		e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
		c.write(t, e)
		c.write(t, c.entry(alice, r))
		part := c.entry(alice, r)
		part.Parent = event()
		c.write(t, part)
	})
	step("it adds another patient to a call that was about one", []string{"mac " + me + " " + b}, func(t *testing.T) {
		e := c.entry(alice, nil)
		r := c.ask(t, alice, e.ID)
		e.ContextNonce, e.ContextMAC = r.Nonce, r.MAC
		c.write(t, e)
		part := e.Child(time.Now(), "read", audit.Success)
		part.Patient = bob
		c.write(t, part)
	})
	step("it says that a machine of ours read a patient", []string{"mac service:import " + a, "mac service:sealer " + a}, func(t *testing.T) {
		for _, name := range []string{"service:import", "service:sealer"} {
			e := c.entry(alice, nil)
			e.Actor = audit.Actor{Issuer: "medirecord", Subject: name}
			c.write(t, e)
		}
	})
	step("a key that never was is not taken for a good one", []string{"unknown " + me + " " + a}, func(t *testing.T) {
		e := c.entry(alice, nil)
		r := c.ask(t, alice, e.ID)
		e.ContextNonce, e.ContextMAC = r.Nonce, strings.Replace(r.MAC, "e1.test1.", "e1.other.", 1)
		c.write(t, e)
		honest := c.entry(alice, r)
		honest.ID = e.ID // so that this step is about the key alone
		honest.Parent, honest.ID = e.ID, event()
		c.write(t, honest)
	})
	step("an entry that is too long to ask about does not stop the watch", []string{"mac " + strings.Repeat("x", 255) + " " + a}, func(t *testing.T) {
		e := c.entry(alice, nil)
		r := c.ask(t, alice, e.ID)
		good := c.entry(alice, r)
		good.Parent = e.ID
		e.Actor.Subject = strings.Repeat("x", 3<<10)
		e.ContextNonce, e.ContextMAC = strings.Repeat("n", 4<<10), r.MAC
		c.write(t, e)
		c.write(t, good)
	})
	log := w.Log.String()
	for _, alarm := range []string{`"msg":"ALERT flagged in the trail","kind":"mac"`, `"msg":"ALERT flagged in the trail","kind":"unentered"`} {
		if !strings.Contains(log, alarm) {
			t.Errorf("the log does not say: %s", alarm)
		}
	}
	var pages, practices int
	medtest.Scan(t, w.super, []any{&pages, &practices}, `
select count(*), count(*) filter (where practice_id = 'north') from medirecord.outbox where topic = 'trail_flag'`)
	if pages == 0 || pages > len(want) || practices == 0 {
		t.Errorf("%d pages, %d of them to north, of %d flags", pages, practices, len(want))
	}
	t.Run("it cannot touch what was noticed", func(t *testing.T) {
		for _, role := range []string{"app", "trail", "worker", "auditor", "sealer"} {
			conn := w.DB.As(t, role)
			for _, sql := range []string{
				`delete from audit.flag`, `update audit.flag set kind = 'lost'`, `truncate audit.flag`, `delete from audit.watch`,
			} {
				if _, err := conn.Exec(t.Context(), sql); err == nil {
					t.Errorf("%s may %s", role, sql)
				}
			}
			if role == "worker" {
				continue
			}
			for _, sql := range []string{
				`update audit.watch set next_index = 1000000`, `insert into audit.flag (id, kind, cause) values (gen_random_uuid(), 'mac', 'mine')`,
			} {
				if _, err := conn.Exec(t.Context(), sql); err == nil {
					t.Errorf("%s may %s", role, sql)
				}
			}
		}
	})
}

// Whoever reads the trail later than the watch, a stream, tells it of an entry
// that is not the one that was sealed: it is flagged once, and an officer paged.
func TestAnEntryThatWasRewrittenIsFlagged(t *testing.T) {
	t.Parallel()
	w := newWatched(t)
	w.Patient(t, medtest.North, medtest.Alice())
	w.looked(t)
	w.Forged = true
	var index int64
	sealed, err := w.reader.Sealed(t.Context(), 1, 0, 1000)
	if err != nil || len(sealed) == 0 {
		t.Fatalf("%d sealed, %v", len(sealed), err)
	}
	for _, s := range sealed {
		if s.Altered {
			t.Errorf("entry %d is said to be altered", s.Index)
		}
		if s.Record.Patient != nil {
			index = s.Index
		}
	}
	medtest.Exec(t, w.super, `alter table audit.event disable trigger no_change`)
	medtest.Exec(t, w.super, `update audit.event set actor_subject = 'somebody' where event_id = $1::text::uuid`, sealed[index].Record.ID)
	again, err := w.reader.Sealed(t.Context(), 1, index, 1)
	if err != nil || len(again) != 1 || !again[0].Altered {
		t.Fatalf("got %+v, %v; want it altered", again, err)
	}
	for range 2 {
		if err := w.minted.Altered(t.Context(), &again[0]); err != nil {
			t.Fatal(err)
		}
	}
	if got := w.flags(t); len(got) != 1 || !strings.HasPrefix(got[0], "altered somebody") {
		t.Errorf("got flags %v", got)
	}
	var pages int
	medtest.Scan(t, w.super, []any{&pages}, `select count(*) from medirecord.outbox where topic = 'trail_flag' and reason_code = 'altered'`)
	if pages != 1 {
		t.Errorf("got %d pages", pages)
	}
}
