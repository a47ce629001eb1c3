// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/app"
	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/outbound"
	"github.com/medirecord/medirecord/internal/policy"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/token"
	"github.com/medirecord/medirecord/internal/trail"
)

// loop calls work from several goroutines until the time is up.
func loop(ctx context.Context, callers int, d time.Duration, work func(caller, n int) error) (load, error) {
	ctx, cancel := context.WithTimeout(ctx, d)
	defer cancel()
	var (
		mu    sync.Mutex
		took  []time.Duration
		first error
		group sync.WaitGroup
	)
	start := time.Now()
	for caller := range callers {
		group.Go(func() {
			mine := make([]time.Duration, 0, 1<<14)
			var err error
			for n := 0; ctx.Err() == nil && err == nil; n++ {
				at := time.Now()
				err = work(caller, n)
				mine = append(mine, time.Since(at))
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, mine...)
			if first == nil {
				first = err
			}
		})
	}
	group.Wait()
	elapsed := time.Since(start)
	slices.Sort(took)
	return load{
		perSecond: float64(len(took)) / elapsed.Seconds(), requests: int64(len(took)),
		p50: quantile(took, .5), p90: quantile(took, .9), p99: quantile(took, .99), max: quantile(took, 1),
	}, first
}

func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// readPatient measures the door without HTTP: the gate, row security,
// decryption, masking, and the durable entry.
func readPatient(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, b.sample)
	if err != nil {
		return err
	}
	defer s.stop()
	ids, err := patientsOf(ctx, s, "practice-north")
	if err != nil {
		return err
	}
	cfg, err := app.DevConfig(s.dir, "operator")
	if err != nil {
		return err
	}
	door, err := app.OpenDoor(ctx, cfg, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	defer door.Close()
	caller, err := door.Gate.Who(ctx, med.Credential(s.Tokens["clinician"]))
	if err != nil {
		return err
	}
	caller.Origin = med.Origin{IP: "127.0.0.1", UserAgent: "bench", RequestID: "bench"}
	fields := []med.Field{med.FieldName, med.FieldSSN, med.FieldDOB, med.FieldDiagnosis}
	read := func(worker, n int) error {
		id := med.PatientID(ids[(worker*97+n)%len(ids)])
		v, err := door.Chart.ReadPatient(ctx, caller, id, fields...)
		if err == nil && (v.ID != id || v.SSN == "" || v.Event == "") {
			err = errors.New("a read without its fields or its entry")
		}
		return err
	}
	b.say("warming up")
	if _, err := loop(ctx, b.conns, 2*time.Second, read); err != nil {
		return err
	}
	var alone, together []load
	for round := range b.rounds {
		for _, step := range []struct {
			into    *[]load
			callers int
		}{{&alone, 1}, {&together, b.conns}} {
			l, err := loop(ctx, step.callers, time.Duration(b.seconds)*time.Second, read)
			if err != nil {
				return err
			}
			*step.into = append(*step.into, l)
		}
		b.say("round %d of %d: alone %.0f/s, %d together %.0f/s", round+1, b.rounds, alone[round].perSecond, b.conns, together[round].perSecond)
	}
	one, many := middle(alone), middle(together)
	r.figure("alone_us_p50", us(one.p50), "µs", "one caller: median of a read")
	r.figure("alone_us_p99", us(one.p99), "µs", "")
	r.figure("alone_per_second", one.perSecond, "1/s", "")
	r.figure("together_per_second", many.perSecond, "1/s", fmt.Sprintf("%d callers", b.conns))
	r.figure("together_us_p50", us(many.p50), "µs", "")
	r.figure("together_us_p99", us(many.p99), "µs", "")
	r.spread("together_over_alone", ratios(together, alone), "what sharing statements and commits brings")
	return nil
}

// middle returns the load of median rate.
func middle(of []load) load {
	s := slices.Clone(of)
	slices.SortFunc(s, func(a, b load) int { return int(a.perSecond - b.perSecond) })
	return s[len(s)/2]
}

// appendCallers is how many append at once.
const appendCallers = 32

// appendAudit measures trail.Append: callers that share inserts and commits
// against an insert and a commit for each entry, on as many connections as
// there are callers.
func appendAudit(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, 2)
	if err != nil {
		return err
	}
	defer s.stop()
	// The entries are of no context: the worker would flag each, on the same cores.
	if err := syscall.Kill(s.PIDs["worker"], syscall.SIGKILL); err != nil {
		return err
	}
	shared, err := trail.Open(ctx, trail.Config{URL: s.Database.TrailURL})
	if err != nil {
		return err
	}
	defer shared.Close()
	single, err := trail.Open(ctx, trail.Config{URL: s.Database.TrailURL, Batch: 1, Flushers: appendCallers})
	if err != nil {
		return err
	}
	defer single.Close()
	to := func(t *trail.Trail) func(int, int) error {
		return func(int, int) error { return t.Append(readEntry()) }
	}
	// The study's comparison (facts/audit.md 4): a read in a transaction with its
	// entry, against a read whose entry shares a flush. Both are the application's,
	// each read under a signed context of its own.
	door, err := newReads(ctx, s, shared)
	if err != nil {
		return err
	}
	defer door.db.Close()
	var grouped, each, alone, readsGrouped, readsApart, readsEach []load
	for round := range b.rounds {
		for _, step := range []struct {
			into    *[]load
			callers int
			work    func(int, int) error
		}{{&grouped, appendCallers, to(shared)}, {&each, appendCallers, to(single)}, {&alone, 1, to(shared)}, {&readsGrouped, appendCallers, door.grouped}, {&readsApart, appendCallers, door.apart}, {&readsEach, appendCallers, door.each}} {
			l, err := loop(ctx, step.callers, time.Duration(b.seconds)*time.Second, step.work)
			if err != nil {
				return err
			}
			*step.into = append(*step.into, l)
		}
		b.say("round %d of %d: grouped %.0f/s, a commit each %.0f/s", round+1, b.rounds, grouped[round].perSecond, each[round].perSecond)
	}
	g, e, one := middle(grouped), middle(each), middle(alone)
	stats := shared.Stats()
	r.figure("grouped_per_second", g.perSecond, "1/s", fmt.Sprintf("%d callers share inserts and commits", appendCallers))
	r.figure("grouped_us_p50", us(g.p50), "µs", "")
	r.figure("grouped_us_p99", us(g.p99), "µs", "")
	r.figure("each_per_second", e.perSecond, "1/s", fmt.Sprintf("an insert and a commit for each entry, on %d connections", appendCallers))
	r.figure("each_us_p50", us(e.p50), "µs", "")
	r.figure("each_us_p99", us(e.p99), "µs", "")
	r.figure("alone_us_p50", us(one.p50), "µs", "one caller on an idle trail: written at once")
	r.figure("entries_per_flush", float64(stats.Appended)/float64(max(1, stats.Flushes)), "", "of the grouped trail, with and without company")
	r.figure("reads_grouped_per_second", middle(readsGrouped).perSecond, "1/s", fmt.Sprintf("what a request does: reads that share a statement, entries that share a flush, %d callers", appendCallers))
	r.figure("reads_apart_per_second", middle(readsApart).perSecond, "1/s", "a transaction for each read, entries that share a flush")
	r.figure("reads_each_per_second", middle(readsEach).perSecond, "1/s", "BEGIN; set context; select; insert entry; COMMIT, as many callers")
	r.spread("reads_grouped_over_each", ratios(readsGrouped, readsEach), "group commit against a commit for each read, wanted 4")
	r.spread("reads_apart_over_each", ratios(readsApart, readsEach), "the same, when only the flush is shared")
	r.spread("grouped_over_each", ratios(grouped, each), "entries alone: group commit against an insert and a commit each")
	return nil
}

// reads reads one patient as the application does, in the ways that are compared.
type reads struct {
	db     *postgres.DB
	trail  *trail.Trail
	minter *token.Minter
}

func newReads(ctx context.Context, s *system, t *trail.Trail) (*reads, error) {
	keys, err := contextKeys(s)
	if err != nil {
		return nil, err
	}
	db, err := postgres.Open(ctx, postgres.Config{URL: s.Database.AppURL, Conns: appendCallers})
	if err != nil {
		return nil, err
	}
	return &reads{db, t, token.NewMinter(keys[0], time.Now)}, nil
}

func contextKeys(s *system) ([]token.ContextKey, error) {
	file, err := os.ReadFile(filepath.Join(s.dir, "sidecar", "context.key"))
	if err != nil {
		return nil, err
	}
	return token.ParseContextKeys(file)
}

// mint makes the context of one read, and its entry.
func (d *reads) mint() (string, *audit.Entry, error) {
	signed, nonce, _, err := d.minter.Mint(aboutRead, token.MaxContextTTL)
	e := readEntry()
	e.ContextNonce = nonce
	return signed, e, err
}

// aboutRead is what the contexts of readEntry's reads say.
var aboutRead = token.Context{
	Issuer: app.DevIssuer, Subject: "dev-clinician", Roles: []string{"clinician"}, Practice: "practice-north",
	Action: "patient.read", Patient: "p-001", Session: "01a2074e-0148-7036-a678-0865c78fb187",
}

func (d *reads) grouped(int, int) error {
	signed, e, err := d.mint()
	if err != nil {
		return err
	}
	if _, err := d.db.Patient(context.Background(), signed, "", "p-001"); err != nil {
		return err
	}
	return d.trail.Append(e)
}

func (d *reads) apart(int, int) error {
	signed, e, err := d.mint()
	if err != nil {
		return err
	}
	if err := d.db.InTx(context.Background(), signed, selectPatient); err != nil {
		return err
	}
	return d.trail.Append(e)
}

func (d *reads) each(int, int) error {
	signed, e, err := d.mint()
	if err != nil {
		return err
	}
	return d.db.InTx(context.Background(), signed, func(tx pgx.Tx) error {
		if err := selectPatient(tx); err != nil {
			return err
		}
		return trail.AppendTx(context.Background(), tx, e)
	})
}

func selectPatient(tx pgx.Tx) error {
	var sealed []byte
	return tx.QueryRow(context.Background(), `select sealed from medirecord.patient where id = 'p-001'`).Scan(&sealed)
}

// readEntry is the entry of an ordinary read.
func readEntry() *audit.Entry {
	c := &med.Caller{ //nolint:gosec // ids of a session and a token, not the things themselves
		Issuer: app.DevIssuer, Subject: "dev-clinician", Practice: "practice-north", Roles: []med.Role{med.RoleClinician}, MFA: med.MFAFresh,
		Session: "01a2074e-0148-7036-a678-0865c78fb187", TokenID: "01a2074e-0148-7914-9f75-088f36baee96",
		Origin: med.Origin{IP: "127.0.0.1", UserAgent: "bench", RequestID: "01a2074e-63de-7a4e-9a84-498b8ee1172e"},
	}
	e := audit.New(time.Now(), c, "read", "patient", "p-001")
	e.Patient, e.PatientPractice, e.Outcome = "p-001", "practice-north", audit.Success
	e.ContextNonce, e.ContextMAC = "W6useeTXhUo1VbHQCbcSXQ", "e1.k1.1795839136.patient.read.4b5dc4dfc8698bb27d02811c6a9ae49aef9f1d66d75d2523e4c4b6e2d8709611"
	e.Detail.Clear = []med.Field{med.FieldName, med.FieldSSN, med.FieldDOB, med.FieldDiagnosis}
	return e
}

// decide measures what the sidecar does for a question, piece by piece.
func decide(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, 2)
	if err != nil {
		return err
	}
	defer s.stop()
	source, err := policy.Embedded()
	if err != nil {
		return err
	}
	engine, err := policy.Load(ctx, source)
	if err != nil {
		return err
	}
	keys, err := contextKeys(s)
	if err != nil {
		return err
	}
	verifier, err := token.NewVerifier(token.Config{
		Issuers: []token.Issuer{{Issuer: app.DevIssuer, Audience: "medirecord", JWKS: s.JWKS}},
		Get:     outbound.New(outbound.Config{Dev: true}).Get,
	})
	if err != nil {
		return err
	}
	defer verifier.Close()
	minter := token.NewMinter(keys[0], time.Now)
	signed, _, _, err := minter.Mint(aboutRead, token.MaxContextTTL)
	if err != nil {
		return err
	}
	in := policy.Input{
		Subject: policy.Subject{Roles: []med.Role{med.RoleClinician}, MFA: med.MFAFresh}, Action: "read",
		Resource: policy.Resource{Type: "patient", Relation: med.RelationSamePractice, Sensitivity: med.SensitivityNormal, State: policy.StateLive},
	}
	fresh, err := fresh(ctx, engine, in)
	if err != nil {
		return err
	}
	r.figure("decide_fresh_us", us(fresh), "µs", "policy.Decide by the Rego engine: questions that were never asked before")
	for _, c := range []struct {
		name, what string
		work       func() error
	}{
		{"decide_hit", "policy.Decide: a question that was asked before", func() error { _, err := engine.Decide(ctx, in); return err }},
		{"token_verify", "token.Verify: signature and claims", func() error { _, err := verifier.Verify(ctx, s.Tokens["clinician"]); return err }},
		{"context_mint", "token.Mint: a signed context", func() error { _, _, _, err := minter.Mint(aboutRead, token.MaxContextTTL); return err }},
		{"context_verify", "token.Verify of it, in Go; PostgreSQL does it in SQL", func() error { _, err := token.Verify(keys, signed, time.Now()); return err }},
	} {
		if err := c.work(); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
		res := testing.Benchmark(func(b *testing.B) { //nolint:thelper // no helper, the measurement itself
			b.ReportAllocs()
			for b.Loop() {
				if err := c.work(); err != nil {
					b.Fatal(err)
				}
			}
		})
		each := float64(res.T.Nanoseconds()) / float64(res.N) / 1e3
		r.figure(c.name+"_us", each, "µs", c.what)
		r.figure(c.name+"_allocs", float64(res.AllocsPerOp()), "", "")
		if c.name == "decide_hit" {
			r.ratio("decide_fresh_over_hit", us(fresh)/each, "what remembering pure decisions brings")
		}
		b.say("%s %s", c.name, res)
	}
	return nil
}

// fresh asks questions that differ, each once.
func fresh(ctx context.Context, engine *policy.Engine, in policy.Input) (time.Duration, error) {
	n, start := 0, time.Now()
	for roles := 1; roles < 1<<len(med.Roles); roles++ {
		in.Subject.Roles = nil
		for i, role := range med.Roles {
			if roles&(1<<i) != 0 {
				in.Subject.Roles = append(in.Subject.Roles, role)
			}
		}
		for _, in.Action = range []string{"read", "search", "update"} {
			for _, in.Resource.Relation = range med.Relations {
				if _, err := engine.Decide(ctx, in); err != nil {
					return 0, err
				}
				n++
			}
		}
	}
	return time.Since(start) / time.Duration(n), nil
}
