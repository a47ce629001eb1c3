// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"sort"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/trail"
)

const (
	sealEntries  = 400_000 // of a round that seals what is there
	sealPatients = 20_000  // whom they are about
	sealRate     = 2_000   // entries a second, of the round that measures delay
)

// sealing measures the sealer: how many entries a second it takes into the log
// when many wait, and how long after its commit an entry is under a signed
// head while they come at a steady rate.
func sealing(ctx context.Context, b *bench, r *result) error {
	s, err := b.start(ctx, 2)
	if err != nil {
		return err
	}
	defer s.stop()
	if err := syscall.Kill(s.PIDs["worker"], syscall.SIGKILL); err != nil { // the sealer is ours
		return err
	}
	super, err := pgx.Connect(ctx, s.Database.SuperuserURL)
	if err != nil {
		return err
	}
	defer func() { _ = super.Close(context.WithoutCancel(ctx)) }()
	sealer, stop, err := b.sealer(ctx, s, super)
	if err != nil {
		return err
	}
	defer stop()
	if err := b.until(ctx, sealer, super); err != nil {
		return err
	}
	var rates []float64
	for round := range b.rounds {
		before := sealer.Stats().Size
		if err := fill(ctx, super, sealEntries); err != nil {
			return err
		}
		start := time.Now()
		if err := b.until(ctx, sealer, super); err != nil {
			return err
		}
		rates = append(rates, float64(sealer.Stats().Size-before)/time.Since(start).Seconds())
		b.say("round %d of %d: %.0f entries a second sealed and signed", round+1, b.rounds, rates[round])
	}
	r.figure("sealed_per_second", median(rates), "1/s", fmt.Sprintf("%d entries about %d patients that wait, into tree and patient map, signed; median", sealEntries, sealPatients))
	r.figure("sealed_per_second_low", slices.Min(rates), "1/s", "lowest round")
	r.figure("sealed_per_second_high", slices.Max(rates), "1/s", "highest round")
	return b.delays(ctx, s, super, sealer, r)
}

// sealer starts a sealer in this process.
func (b *bench) sealer(ctx context.Context, s *system, super *pgx.Conn) (*trail.Sealer, func(), error) {
	var origin, url string
	if err := super.QueryRow(ctx, `select regexp_replace(origin, '/1$', '') from audit.epoch`).Scan(&origin); err != nil {
		return nil, nil, err
	}
	if err := super.QueryRow(ctx, `select format('alter role medirecord_sealer password %L', 'bench')`).Scan(&url); err != nil {
		return nil, nil, err
	}
	if _, err := super.Exec(ctx, url); err != nil {
		return nil, nil, err
	}
	cfg, err := pgx.ParseConfig(s.Database.SuperuserURL)
	if err != nil {
		return nil, nil, err
	}
	skey, _, err := note.GenerateKey(rand.Reader, origin+"/1")
	if err != nil {
		return nil, nil, err
	}
	key, err := note.NewSigner(skey)
	if err != nil {
		return nil, nil, err
	}
	// What the worker signed is not ours to continue.
	if _, err := super.Exec(ctx, `delete from audit.checkpoint`); err != nil {
		return nil, nil, err
	}
	sealer, err := trail.OpenSealer(ctx, trail.SealerConfig{
		URL:    fmt.Sprintf("postgres://medirecord_sealer:bench@/%s?host=%s&port=%d", s.Database.Name, cfg.Host, cfg.Port),
		Origin: origin, Signers: []note.Signer{key}, State: filepath.Join(b.dir, "head.json"),
	})
	if err != nil {
		return nil, nil, err
	}
	life, cancel := context.WithCancel(ctx)
	done := make(chan error, 1)
	go func() { done <- sealer.Run(life) }()
	stop := func() {
		cancel()
		if err := <-done; err != nil {
			b.say("sealer: %v", err)
		}
		sealer.Close()
	}
	return sealer, stop, nil
}

// until waits until all that is there is sealed and signed.
func (b *bench) until(ctx context.Context, s *trail.Sealer, super *pgx.Conn) error {
	var n int64
	if err := super.QueryRow(ctx, `select count(*) from audit.event`).Scan(&n); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		if st := s.Stats(); st.Size >= n && st.CosignedSize >= n {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.New("the sealer does not come to an end")
		case <-tick.C:
		}
	}
}

// fill writes entries as they are, fast.
func fill(ctx context.Context, super *pgx.Conn, n int) error {
	_, err := super.Exec(ctx, `
insert into audit.event (event_id, occurred_at, actor_issuer, actor_subject, actor_practice, patient_id, patient_practice, action, resource_type, resource_id,
                         outcome, break_glass, ctx_nonce, ctx_mac, detail, nonce, version)
select (lpad(to_hex((extract(epoch from clock_timestamp()) * 1000)::bigint), 12, '0') || '7' || substr(md5(random()::text || i), 1, 3) || '8' || substr(md5(i || 'x' || random()::text), 1, 15))::uuid,
       clock_timestamp(), 'https://issuer.example', 'dr-' || i % 500, 'practice-north', 'p-' || i % $2, 'practice-north', 'read', 'patient', 'p-' || i % $2,
       'success', false, 'W6useeTXhUo1VbHQCbcSXQ', 'e1.k1.1795839136.patient.read.4b5dc4dfc8698bb27d02811c6a9ae49aef9f1d66d75d2523e4c4b6e2d8709611',
       '{"roles":["clinician"],"session":"01a2074e-0148-7036-a678-0865c78fb187","token_id":"01a2074e-0148-7914-9f75-088f36baee96","mfa":"fresh","clear":["name","ssn","dob","diagnosis"],"reason":"allowed","ip":"127.0.0.1","user_agent":"bench","request_id":"01a2074e-63de-7a4e-9a84-498b8ee1172e"}',
       decode(md5(random()::text), 'hex'), 1
  from generate_series(1, $1) i`, n, sealPatients)
	return err
}

// delays measures the time from an entry's commit to the signature of a head
// over it.
func (b *bench) delays(ctx context.Context, s *system, super *pgx.Conn, sealer *trail.Sealer, r *result) error {
	t, err := trail.Open(ctx, trail.Config{URL: s.Database.TrailURL})
	if err != nil {
		return err
	}
	defer t.Close()
	type head struct {
		size int64
		at   time.Time
	}
	var heads []head
	life, cancel := context.WithCancel(ctx)
	defer cancel()
	var watch sync.WaitGroup
	watch.Go(func() { // each new head, as soon as it is signed
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for last := (time.Time{}); ; {
			if st := sealer.Stats(); st.SignedAt.After(last) {
				last = st.SignedAt
				heads = append(heads, head{st.SignedSize, last})
			}
			select {
			case <-life.Done():
				return
			case <-tick.C:
			}
		}
	})
	committed, err := paced(ctx, t, time.Duration(b.seconds)*time.Second)
	if err != nil {
		return err
	}
	if err := b.until(ctx, sealer, super); err != nil {
		return err
	}
	cancel()
	watch.Wait()
	index, err := indexes(ctx, super)
	if err != nil {
		return err
	}
	var took []time.Duration
	for id, at := range committed {
		i, ok := index[id]
		h := sort.Search(len(heads), func(h int) bool { return heads[h].size > i })
		if !ok || h == len(heads) {
			return errors.New("an entry is under no head")
		}
		took = append(took, max(0, heads[h].at.Sub(at)))
	}
	slices.Sort(took)
	rate := float64(len(committed)) / float64(b.seconds)
	b.say("%.0f entries a second: commit to signed head %v in the middle, %v at 99 %%", rate, quantile(took, .5), quantile(took, .99))
	r.figure("paced_per_second", rate, "1/s", fmt.Sprintf("entries appended, wanted %d", sealRate))
	r.figure("signed_ms_p50", us(quantile(took, .5))/1e3, "ms", "from an entry's commit to the signature of a head over it")
	r.figure("signed_ms_p99", us(quantile(took, .99))/1e3, "ms", "wanted at most 1,500")
	r.figure("signed_ms_max", us(quantile(took, 1))/1e3, "ms", "")
	return nil
}

// paced appends entries at sealRate and returns when each was committed.
func paced(ctx context.Context, t *trail.Trail, d time.Duration) (map[string]time.Time, error) {
	const callers = 50
	var mu sync.Mutex
	out := map[string]time.Time{}
	var first error
	var group sync.WaitGroup
	end := time.Now().Add(d)
	for range callers {
		group.Go(func() {
			tick := time.NewTicker(time.Second * callers / sealRate)
			defer tick.Stop()
			for time.Now().Before(end) && ctx.Err() == nil {
				<-tick.C
				e := readEntry()
				err := t.Append(e)
				mu.Lock()
				out[string(e.ID)] = time.Now()
				if first == nil {
					first = err
				}
				mu.Unlock()
			}
		})
	}
	group.Wait()
	return out, first
}

// indexes returns each entry's place in the log.
func indexes(ctx context.Context, super *pgx.Conn) (map[string]int64, error) {
	rows, err := super.Query(ctx, `
select encode(substr(ids, 16 * i + 1, 16), 'hex')::uuid::text, first_index + i from audit.batch, generate_series(0, n - 1) i
 where sealed_at > clock_timestamp() - interval '10 minutes' and n < 65536`)
	if err != nil {
		return nil, err
	}
	out := map[string]int64{}
	var id string
	var i int64
	_, err = pgx.ForEachRow(rows, []any{&id, &i}, func() error {
		out[id] = i
		return nil
	})
	return out, err
}
