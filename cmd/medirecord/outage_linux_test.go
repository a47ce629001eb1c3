// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// keyCache is how long keys serve without their keeper here.
	keyCache = 2 * time.Second
	// afterPause and afterKill are how long after a part was paused, or killed,
	// an answer may still arrive that had passed it before (issue item 9).
	afterPause = time.Second
	afterKill  = 100 * time.Millisecond
)

// ledger is a client's book: what was disclosed, and which entries were named.
type ledger struct {
	mu        sync.Mutex
	disclosed map[string]string // event to patient
	refused   map[string]string // event to code
}

func (l *ledger) note(r *reading) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.disclosed == nil {
		l.disclosed, l.refused = map[string]string{}, map[string]string{}
	}
	switch {
	case r.status == 200:
		l.disclosed[r.event] = r.patient
	case r.event != "":
		l.refused[r.event] = r.code
	}
}

// compare holds the book against the trail, which is reread from scratch: what
// was disclosed is there as a success of that patient, what was refused under
// an entry's name is there as something else.
func (l *ledger) compare(t *testing.T, s *devServer) {
	t.Helper()
	type entry struct{ patient, outcome string }
	rows, err := s.super(t, s.info.Database.Name).Query(t.Context(),
		`select event_id::text, coalesce(patient_id, ''), case when parent_id is null then outcome else 'child' end from audit.event`)
	if err != nil {
		t.Fatal(err)
	}
	trail := map[string]entry{}
	var id string
	var e entry
	if _, err := pgx.ForEachRow(rows, []any{&id, &e.patient, &e.outcome}, func() error { trail[id] = e; return nil }); err != nil {
		t.Fatal(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	missing := 0
	for event, patient := range l.disclosed {
		if e, ok := trail[event]; !ok || e.outcome != "success" || e.patient != patient {
			if missing++; missing <= 3 {
				t.Errorf("a 200 of %s has the entry %q: %+v", patient, event, e)
			}
		}
	}
	for event, code := range l.refused {
		if e, ok := trail[event]; !ok || e.outcome == "success" || e.outcome == "child" {
			t.Errorf("a refusal with %s has the entry %q: %+v", code, event, e)
		}
	}
	if missing > 0 || len(l.disclosed) == 0 {
		t.Errorf("of %d answers that were disclosed %d have no entry", len(l.disclosed), missing)
	}
	t.Logf("%d answers disclosed, %d refused by name, %d entries", len(l.disclosed), len(l.refused), len(trail))
}

// reading is one answer under load.
type reading struct {
	client       int
	patient      string
	status       int
	code, event  string
	begun, ended time.Time
	wrong        string // what is wrong with it whatever happened
}

// said is status and code.
func (r *reading) said() string { return fmt.Sprintf("%d %s", r.status, r.code) }

// load is clients that read patients one after the other, on connections that
// they keep.
type load struct {
	clients int
	cancel  context.CancelFunc
	group   sync.WaitGroup

	mu       sync.Mutex
	readings []reading
	stalls   []stall
}

// stall is a time in which this machine did not run this process, or its disk did
// not write what this process wrote. The server has stood still no less.
type stall struct{ from, to time.Time }

// short is what is no stall: no part's deadline is anywhere near.
const short = 250 * time.Millisecond

func startLoad(t *testing.T, base string, s *devServer, people map[string]answer, book *ledger) *load {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	l := &load{clients: 12, cancel: cancel}
	ids := make([]string, 0, len(people))
	for id := range people {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	for n := range l.clients {
		role := []string{"clinician", "nurse", "clinician", "admin", "patient", "break_glass"}[n%6]
		l.group.Go(func() {
			pace := time.NewTicker(3 * time.Millisecond)
			defer pace.Stop()
			for i := n; ctx.Err() == nil; i++ {
				id := ids[i%len(ids)]
				if role == "patient" {
					id = s.info.Patients[0].ID
				}
				var header []string
				if role == "break_glass" {
					header = []string{"X-Break-Glass-Reason", breakGlassReason}
				}
				a := ask(ctx, base+"/patients/"+id, s.info.Tokens[role], header...)
				if ctx.Err() != nil {
					return // the test hung up, and saw nothing
				}
				r := read(a, n, id, people)
				book.note(&r)
				l.mu.Lock()
				l.readings = append(l.readings, r)
				l.mu.Unlock()
				<-pace.C
			}
		})
	}
	probe, err := os.Create(filepath.Join(t.TempDir(), "probe"))
	if err != nil {
		t.Fatal(err)
	}
	l.group.Go(func() { l.watch(ctx, 5*time.Millisecond, func() {}) })
	l.group.Go(func() {
		defer func() { _ = probe.Close() }()
		l.watch(ctx, 50*time.Millisecond, func() {
			if _, err := probe.WriteAt([]byte{1}, 0); err != nil || probe.Sync() != nil {
				t.Errorf("the disk takes nothing: %v", err)
			}
		})
	})
	t.Cleanup(l.stop)
	return l
}

// watch does something small at each tick, and notes when that, or the tick, was
// late: what others do was late then, and not for anything that they did.
func (l *load) watch(ctx context.Context, every time.Duration, small func()) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	last := time.Now()
	for ctx.Err() == nil {
		<-tick.C
		small()
		now := time.Now()
		if now.Sub(last) > short {
			l.mu.Lock()
			l.stalls = append(l.stalls, stall{last, now})
			l.mu.Unlock()
		}
		last = now
	}
}

// stalled returns for how long, together, the machine stood still between two moments.
func (l *load) stalled(from, to time.Time) (d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.stalls {
		if s.from.Before(to) && s.to.After(from) {
			d += s.to.Sub(s.from)
		}
	}
	return d
}

func (l *load) stop() {
	l.cancel()
	l.group.Wait()
}

func read(a answer, client int, id string, people map[string]answer) reading {
	r := reading{client: client, patient: id, status: a.status, begun: a.begun, ended: a.ended}
	name := people[id].field("name")
	if a.header != nil {
		r.event = a.event()
	}
	if a.status != 200 {
		r.code = a.field("code")
		for _, p := range people {
			if strings.Contains(string(a.body), p.field("name")) || strings.Contains(string(a.body), p.field("diagnosis")) {
				r.wrong = "a refusal with a patient in it"
			}
		}
		if a.err != nil {
			r.wrong = "no answer: " + a.err.Error()
		}
		return r
	}
	switch {
	case a.err != nil:
		r.wrong = "half an answer: " + a.err.Error()
	case a.field("id") != id || a.field("name") != name:
		r.wrong = "somebody else's record"
	case r.event == "":
		r.wrong = "a disclosure without an entry"
	}
	return r
}

func (l *load) all() []reading {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.readings[:len(l.readings):len(l.readings)]
}

// every waits until each client has had a reading of that kind, ended after.
func (l *load) every(t *testing.T, what string, after time.Time, kind func(*reading) bool) {
	t.Helper()
	next, had := 0, map[int]bool{}
	var last reading
	eventually(t, 3*time.Minute, "each client "+what, func() error {
		all := l.all()
		for ; next < len(all); next++ {
			if r := &all[next]; r.ended.After(after) {
				last = *r
				if kind(r) {
					had[r.client] = true
				}
			}
		}
		if len(had) < l.clients {
			return fmt.Errorf("%d of %d clients, last %d %s %s", len(had), l.clients, last.status, last.code, last.wrong)
		}
		return nil
	})
}

func (l *load) served(t *testing.T) {
	t.Helper()
	now, times := time.Now(), map[int]int{}
	l.every(t, "is served", now, func(r *reading) bool {
		if r.status == 200 && r.begun.After(now) {
			times[r.client]++
		}
		return times[r.client] >= 5
	})
}

// outage is something that goes away and, maybe, comes back.
type outage struct {
	cut    func()
	within time.Duration // the last disclosure may arrive this long after the cut
	cached bool          // what is lost serves from a cache until then; else no call that begins after the cut is served
	times  int           // how often each client is refused before it is mended; 1 when 0
	codes  []string      // what is answered instead: status and code
	red    string        // the readiness check that fails
	mend   func()        // nil: it does not come back
}

// suffer lets the load live through an outage and says what went wrong.
func (l *load) suffer(t *testing.T, ops, log string, o outage) {
	t.Helper()
	l.served(t)
	ready(t, ops)
	// On a machine that is busy with other things what had passed takes longer
	// to arrive, and to be looked at. What had not passed is told by its entry.
	slack := max(0, 8*l.slowest()-o.within)
	begun := time.Now() // who is refused while it is being cut is refused rightly
	o.cut()
	at := time.Now()
	refused := map[int]int{}
	l.every(t, "is refused", at, func(r *reading) bool {
		if r.status != 200 {
			refused[r.client]++
		}
		return refused[r.client] >= max(1, o.times)
	})
	gone := time.Now() // to everybody
	eventually(t, time.Minute, "/readyz is red", func() error {
		if status, failing := health(t, ops, "/readyz"); status != 503 || !slices.Contains(failing, o.red) {
			return fmt.Errorf("%d, failing: %v, want %s", status, failing, o.red)
		}
		return nil
	})
	if status, _ := health(t, ops, "/healthz"); status != 200 {
		t.Errorf("/healthz answers %d, want 200", status)
	}
	mended := time.Now()
	if o.mend != nil {
		o.mend()
		l.served(t)
		ready(t, ops)
	}
	l.stop()
	last := at.Add(o.within + slack + l.stalled(begun, gone))
	codes := map[string]int{}
	late := time.Duration(0)
	for _, r := range l.all() {
		switch {
		case r.wrong != "":
			t.Errorf("%d %s of %s: %s", r.status, r.code, r.patient, r.wrong)
		case r.status == 200:
			if r.ended.After(at) && r.ended.Before(mended) {
				late = max(late, r.ended.Sub(at))
			}
			if r.ended.After(last) && r.ended.Before(mended) {
				t.Errorf("a disclosure %s after the cut, want none later than %s", r.ended.Sub(at), last.Sub(at))
			}
			if born := bornAt(t, r.event); !o.cached && born.After(at) && r.ended.Before(mended) {
				t.Errorf("a disclosure by a call that began %s after the cut", born.Sub(at))
			}
		case slices.Contains([]string{noSidecar, noDatabase, noTrail, noKeys}, r.said()) && l.stalled(r.begun, r.ended) > 0:
			// Too slow for a part's deadline, and the machine is why.
		case r.ended.Before(begun):
			t.Errorf("%s before the cut", r.said())
		default:
			codes[r.said()]++
		}
	}
	for c := range codes {
		if !slices.Contains(o.codes, c) {
			t.Errorf("answers of %s, want %v only; the log says: %s", c, o.codes, failures(t, log))
		}
	}
	t.Logf("%d answers; refused: %v; last disclosure %s after the cut, allowed %s", len(l.all()), codes, late.Round(time.Millisecond), last.Sub(at).Round(time.Millisecond))
}

// slowest returns how long the slowest answer took lately.
func (l *load) slowest() time.Duration {
	all := l.all()
	var d time.Duration
	for _, r := range all[max(0, len(all)-4*l.clients):] {
		d = max(d, r.ended.Sub(r.begun))
	}
	return d
}

// bornAt returns when an entry was begun, at the door: its id is a UUID of
// version 7.
func bornAt(t *testing.T, event string) time.Time {
	t.Helper()
	ms, err := strconv.ParseInt(strings.ReplaceAll(event, "-", "")[:12], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	return time.UnixMilli(ms)
}

const (
	noSidecar  = "401 sidecar_unavailable"
	noDatabase = "503 database_unavailable"
	noTrail    = "503 audit_unavailable"
	noKeys     = "503 keys_unavailable"
)

// failClosed takes the parts of a server away one by one, while it is under
// load. At its end the sidecar is dead.
func failClosed(t *testing.T, s *devServer, book *ledger, people map[string]answer) {
	stage := func(name string, o outage) {
		t.Helper()
		if !t.Run(name, func(t *testing.T) { startLoad(t, s.info.API, s, people, book).suffer(t, s.info.Ops, s.errs, o) }) {
			t.FailNow()
		}
	}
	stage("the sidecar paused", outage{
		cut: func() { signalProcess(t, s.info.PIDs["sidecar"], syscall.SIGSTOP) }, within: afterPause, codes: []string{noSidecar}, red: "sidecar",
		mend: func() { signalProcess(t, s.info.PIDs["sidecar"], syscall.SIGCONT) },
	})
	stage("PostgreSQL paused", outage{
		cut: func() { s.signalPostgres(t, syscall.SIGSTOP) }, within: afterPause, codes: []string{noDatabase, noTrail, noKeys}, red: "database",
		mend: func() { s.signalPostgres(t, syscall.SIGCONT) },
	})
	keeper := filepath.Join(s.data, "keeper")
	stage("the key keeper away", outage{
		cut: func() { rename(t, keeper, keeper+".away") }, within: keyCache, cached: true, codes: []string{noKeys}, red: "keys",
		mend: func() { rename(t, keeper+".away", keeper) },
	})
	hang, canHang := hangingFiles(keeper)
	if canHang != nil {
		t.Logf("the key keeper hanging: not tried: %v", canHang)
	} else {
		release := func() {}
		stage("the key keeper hanging", outage{
			cut: func() { release = hang(t) }, within: keyCache, cached: true, codes: []string{noKeys}, red: "keys", mend: func() { release() },
		})
	}
	super := s.super(t, s.info.Database.Name)
	var columns string
	stage("the right to write the trail revoked", outage{
		cut: func() {
			columns = row[string](t, super, `select string_agg(quote_ident(column_name), ', ') from information_schema.column_privileges
				where table_schema = 'audit' and table_name = 'event' and grantee = 'medirecord_trail' and privilege_type = 'INSERT'`)
			exec1(t, super, `revoke insert (`+columns+`) on audit.event from medirecord_trail`)
		},
		within: afterKill, codes: []string{noTrail}, red: "audit_trail",
		mend: func() { exec1(t, super, `grant insert (`+columns+`) on audit.event to medirecord_trail`) },
	})
	t.Run("the network to the sidecar cut", func(t *testing.T) { networkCut(t, s, book, people) })
	t.Run("clients that hang up", func(t *testing.T) { hangUps(t, s) })
	t.Run("every answer has its entry", func(t *testing.T) { book.compare(t, s) })
	stage("the sidecar killed", outage{
		cut: func() { signalProcess(t, s.info.PIDs["sidecar"], syscall.SIGKILL) }, within: afterKill, times: 100, codes: []string{noSidecar}, red: "sidecar",
	})
	eventually(t, time.Minute, "the supervisor says so", func() error {
		if !regexp.MustCompile(`(?m)^sidecar \(pid \d+\) has ended: `).MatchString(contents(t, s.out)) {
			return errors.New("not yet")
		}
		return nil
	})
}

func postgresKilled(t *testing.T, s *devServer, book *ledger, people map[string]answer) {
	startLoad(t, s.info.API, s, people, book).suffer(t, s.info.Ops, s.errs, outage{
		cut: func() { s.signalPostgres(t, syscall.SIGKILL) }, within: afterKill, codes: []string{noDatabase, noTrail, noKeys}, red: "database",
	})
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// networkCut runs an API of its own, whose way to the sidecar leads through
// the test: first packets vanish, then connections break.
func networkCut(t *testing.T, s *devServer, book *ledger, people map[string]answer) {
	way := newWire(t, s.info.Sidecar)
	api, ops, log := s.serve(t, "CORESDK_SIDECAR_ADDR="+way.addr)
	t.Run("packets vanish", func(t *testing.T) {
		startLoad(t, api, s, people, book).suffer(t, ops, log, outage{cut: way.freeze, within: afterPause, codes: []string{noSidecar}, red: "sidecar", mend: way.thaw})
	})
	t.Run("connections break", func(t *testing.T) {
		startLoad(t, api, s, people, book).suffer(t, ops, log, outage{cut: way.snap, within: afterKill, times: 50, codes: []string{noSidecar}, red: "sidecar", mend: way.mend})
	})
}

// serving is the environment of an API on a development server's databases.
func (s *devServer) serving() []string {
	return []string{
		"CORESDK_ENV=dev", "CORESDK_FAIL_MODE=closed", "CORESDK_SIDECAR_ADDR=" + s.info.Sidecar, "CORESDK_JWKS_URI=" + s.info.JWKS,
		"MEDIRECORD_DATABASE_URL=" + s.info.Database.AppURL, "MEDIRECORD_TRAIL_DATABASE_URL=" + s.info.Database.TrailURL,
		"MEDIRECORD_KEYSTORE_DATABASE_URL=" + s.info.Database.KeystoreURL, "MEDIRECORD_KEY_KEEPER=file://" + filepath.Join(s.data, "keeper"),
		"MEDIRECORD_LISTEN=127.0.0.1:0", "MEDIRECORD_OPS_LISTEN=127.0.0.1:0",
	}
}

// serve runs `medirecord serve` for the length of the test and returns the
// addresses of its two listeners, and its log.
func (s *devServer) serve(t *testing.T, env ...string) (api, ops, log string) {
	t.Helper()
	file := filepath.Join(s.tmp(), "serve.ready")
	p := s.launch(t, "serve", append(append(s.serving(), "MEDIRECORD_READY_FILE="+file), env...), "serve")
	t.Cleanup(func() {
		if err := p.Stop(context.WithoutCancel(t.Context()), syscall.SIGTERM, 2*time.Minute); err != nil || p.Err() != nil {
			t.Errorf("SIGTERM: %v, %v, want exit code 0", err, p.Err())
		}
		_ = os.Remove(file)
	})
	eventually(t, 2*time.Minute, "serve is ready", func() error {
		select {
		case <-p.Done():
			t.Fatalf("it ended: %s", contents(t, p.errs))
		default:
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		f := strings.Fields(string(b))
		api, ops = "http://"+f[0], "http://"+f[1]
		return nil
	})
	return api, ops, p.errs
}

// failures returns the first few failures of the server's own that a log has.
func failures(t *testing.T, log string) string {
	t.Helper()
	return strings.Join(regexp.MustCompile(`"msg":"request failed".*"kind":"internal".*`).FindAllString(contents(t, log), 3), "\n")
}

// wire carries TCP between an address of its own and another, until it does
// not.
type wire struct {
	t        *testing.T
	addr, to string

	mu     sync.Mutex
	thawed chan struct{} // closed: bytes flow
	ln     net.Listener
	conns  []net.Conn
}

func newWire(t *testing.T, to string) *wire {
	w := &wire{t: t, to: to, addr: "127.0.0.1:0", thawed: make(chan struct{})}
	close(w.thawed)
	w.mend()
	t.Cleanup(func() { w.thaw(); w.snap() })
	return w
}

// mend listens, again maybe.
func (w *wire) mend() {
	ln, err := net.Listen("tcp", w.addr)
	if err != nil {
		w.t.Error(err)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ln, w.addr = ln, ln.Addr().String()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go w.carry(c)
		}
	}()
}

func (w *wire) carry(near net.Conn) {
	far, err := net.Dial("tcp", w.to)
	if err != nil {
		_ = near.Close()
		return
	}
	w.mu.Lock()
	w.conns = append(w.conns, near, far)
	w.mu.Unlock()
	go w.pipe(near, far)
	w.pipe(far, near)
}

func (w *wire) pipe(to io.WriteCloser, from io.Reader) {
	defer func() { _ = to.Close() }()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		w.mu.Lock()
		thawed := w.thawed
		w.mu.Unlock()
		<-thawed
		if _, werr := to.Write(b[:n]); err != nil || werr != nil {
			return
		}
	}
}

// freeze lets nothing through and tells nobody.
func (w *wire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.thawed = make(chan struct{})
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.thawed:
	default:
		close(w.thawed)
	}
}

// snap breaks every connection and takes no other.
func (w *wire) snap() {
	w.mu.Lock()
	defer w.mu.Unlock()
	_ = w.ln.Close()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// hangUps lets clients hang up at any moment. What reached the chart has its
// entry, whoever was still there to hear of it.
func hangUps(t *testing.T, s *devServer) {
	const clients, each = 12, 60
	var answered, gone atomic.Int64
	var slowest atomic.Int64
	many := func(kind string, patience func(*rand.Rand) time.Duration) {
		var group sync.WaitGroup
		for n := range clients {
			group.Go(func() {
				dice := rand.New(rand.NewPCG(1, uint64(n)))
				for i := range each {
					ctx, cancel := context.WithTimeout(t.Context(), patience(dice))
					a := ask(ctx, s.info.API+"/patients/p-001", s.info.Tokens["clinician"], "X-Request-Id", fmt.Sprintf("%s-%d-%d", kind, n, i))
					cancel()
					switch took := int64(a.ended.Sub(a.begun)); {
					case a.err != nil:
						gone.Add(1)
					case kind == "hangup":
						if a.status == 200 { // the others were told that a part was too slow
							answered.Add(1)
						}
					case took > slowest.Load():
						slowest.Store(took)
					}
				}
			})
		}
		group.Wait()
	}
	many("patient", func(*rand.Rand) time.Duration { return time.Minute })
	if gone.Load() > 0 {
		t.Fatalf("%d got no answer", gone.Load())
	}
	for i := 0; i < 20 && (gone.Load() < each || answered.Load() < each); i++ { // until there is enough of both
		many("hangup", func(dice *rand.Rand) time.Duration { return time.Duration(dice.Int64N(slowest.Load())) })
	}
	line := regexp.MustCompile(`"msg":"request","request":"([0-9a-f-]{36})","method":"GET","route":"/patients/:id","status":(\d+),.*?(?:"audit_event":"([0-9a-f-]{36})")?\}`)
	super := s.super(t, s.info.Database.Name)
	var disclosed, others int
	eventually(t, 2*time.Minute, "each request that reached the chart has its entry", func() error {
		rows, err := super.Query(t.Context(), `select event_id::text, coalesce(detail::jsonb ->> 'request_id', ''), outcome,
			coalesce(detail::jsonb ->> 'client_request_id', '') like 'hangup-%' from audit.event where parent_id is null`)
		if err != nil {
			return err
		}
		requestOf, ours := map[string]string{}, map[string]bool{}
		disclosed, others = 0, 0
		var event, request, outcome string
		var hungUp bool
		if _, err := pgx.ForEachRow(rows, []any{&event, &request, &outcome, &hungUp}, func() error {
			requestOf[event] = request
			switch {
			case hungUp && outcome == "success":
				disclosed++
				ours[request] = true
			case hungUp:
				others++
				ours[request] = true
			}
			return nil
		}); err != nil {
			return err
		}
		for _, m := range line.FindAllStringSubmatch(contents(t, s.errs), -1) {
			delete(ours, m[1])
			if event := m[3]; event == "" && m[2] != "499" && m[2] != "401" && m[2] != "503" {
				return fmt.Errorf("a request ended with %s and no entry", m[2])
			} else if event != "" && requestOf[event] != m[1] {
				return fmt.Errorf("request %s was to have the entry %s", m[1], event)
			}
		}
		for request := range ours {
			return fmt.Errorf("request %s has an entry and has not ended", request)
		}
		return nil
	})
	t.Logf("%d hung up, %d were answered; entries: %d successes, %d others", gone.Load(), answered.Load(), disclosed, others)
	if int64(disclosed) < answered.Load() || int64(disclosed+others) <= answered.Load() {
		t.Errorf("%d were answered and %d hung up, but there are only %d successes and %d others", answered.Load(), gone.Load(), disclosed, others)
	}
}
