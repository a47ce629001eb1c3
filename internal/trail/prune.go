// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/postgres"
)

// LeastRetention is how many years the trail is kept at least. The database
// asks for as much, whatever it is told.
const LeastRetention = 6

// Retention drops months of the trail that are older than the policy, as
// medirecord_retention. It reads no entry.
type Retention struct{ conn *pgx.Conn }

// OpenRetention connects.
func OpenRetention(ctx context.Context, url string) (*Retention, error) {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	for _, sql := range []string{`set statement_timeout = 0`, `set idle_in_transaction_session_timeout = '1min'`} {
		if _, err := conn.Exec(ctx, sql); err != nil {
			return nil, postgres.Unavailable(err)
		}
	}
	return &Retention{conn}, nil
}

// Close closes the connection.
func (r *Retention) Close(ctx context.Context) {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	_ = r.conn.Close(end)
}

// Pruning is a month of one epoch that is to be dropped: what it holds, and the
// SHA-256 of its export.
type Pruning struct {
	*Month
	Entries int64
	Export  [32]byte
}

func (p *Pruning) resource() string { return fmt.Sprintf("%s/%d", p.Name(), p.Log.Epoch) }

func newEntry(now time.Time, action, kind, id, operator string) *audit.Entry {
	e := audit.New(now, &med.Caller{Issuer: "medirecord", Subject: "service:retention"}, action, kind, id)
	e.Outcome, e.Detail.OnBehalfOf = audit.Success, operator
	return e
}

// Announce writes the entry that says what is dropped, and returns its id. It
// must be sealed before anything goes.
func (r *Retention) Announce(ctx context.Context, now time.Time, operator string, p *Pruning) (string, error) {
	e := newEntry(now, "retention.prune", "audit", p.resource(), operator)
	e.Detail.Counts = map[string]int{"first": int(p.From), "last": int(p.To - 1), "entries": int(p.Entries), "checkpoint_size": int(p.Size)}
	e.Detail.Digest = hex.EncodeToString(p.Export[:])
	return string(e.ID), postgres.Unavailable(insertEvents(ctx, r.conn, []*audit.Entry{e}))
}

// Announced returns the entry that an earlier run, which did not get further,
// has written of the same; "" when there is none.
func (s *Snapshot) Announced(ctx context.Context, p *Pruning) (id string, err error) {
	err = s.main().QueryRow(ctx, `
select e.event_id::text from audit.event e
 where e.action = 'retention.prune' and e.actor_issuer = 'medirecord' and e.actor_subject = 'service:retention' and e.resource_id = $1 and e.detail::jsonb ->> 'digest' = $2
   and e.occurred_at > now() - interval '62 days' order by e.occurred_at limit 1`, p.resource(), hex.EncodeToString(p.Export[:])).Scan(&id)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	return id, postgres.Unavailable(err)
}

// Sealed reports whether the entry is sealed under a cosigned checkpoint.
func (r *Retention) Sealed(ctx context.Context, id string) (ok bool, err error) {
	err = r.conn.QueryRow(ctx, `select audit.is_sealed($1::text::uuid)`, id).Scan(&ok)
	return ok, postgres.Unavailable(err)
}

// Prune drops a month. The database checks all over again: its age, holds, that
// every entry is sealed and cosigned, and that the entries that say so are. It
// all happens, or nothing does.
func (r *Retention) Prune(ctx context.Context, month time.Time, years int, of []*Pruning, ids []string) (int64, error) {
	var epochs []int32
	var firsts, lasts []int64
	var exports [][]byte
	for _, p := range of {
		epochs, firsts, lasts, exports = append(epochs, p.Log.Epoch), append(firsts, p.From), append(lasts, p.To-1), append(exports, p.Export[:])
	}
	var n int64
	err := r.conn.QueryRow(ctx, `select audit.prune($1::date, make_interval(years => $2), $3, $4, $5, $6::text[]::uuid[], $7)`,
		month, max(years, LeastRetention), epochs, firsts, lasts, ids, exports).Scan(&n)
	return n, refusal(err)
}

// refusal keeps what our own functions say: it holds names and numbers, no
// values of a row.
func refusal(err error) error {
	var pe *pgconn.PgError
	if errors.As(err, &pe) && len(pe.Message) > 12 && pe.Message[:12] == "medirecord: " {
		return errors.New(pe.Message[12:])
	}
	return postgres.Unavailable(err)
}

// Hold keeps what the policy would let go.
type Hold struct {
	Name        string
	Patient     string // "": everybody
	From, Until *time.Time
	PlacedAt    time.Time
	EndedAt     *time.Time
}

// PlaceHold places a hold, with its entry.
func (r *Retention) PlaceHold(ctx context.Context, now time.Time, operator string, h Hold) error {
	return r.held(ctx, newEntry(now, "retention.hold", "hold", h.Name, operator), func(tx pgx.Tx, entry string) error {
		_, err := tx.Exec(ctx, `select audit.place_hold($1, nullif($2, ''), $3::date, $4::date, $5::text::uuid)`, h.Name, h.Patient, h.From, h.Until, entry)
		return err
	})
}

// EndHold ends a hold, with its entry.
func (r *Retention) EndHold(ctx context.Context, now time.Time, operator, name string) error {
	return r.held(ctx, newEntry(now, "retention.hold_end", "hold", name, operator), func(tx pgx.Tx, entry string) error {
		var ended bool
		err := tx.QueryRow(ctx, `select audit.end_hold($1, $2::text::uuid)`, name, entry).Scan(&ended)
		if err == nil && !ended {
			return errors.New("no hold of that name is in force")
		}
		return err
	})
}

func (r *Retention) held(ctx context.Context, e *audit.Entry, work func(tx pgx.Tx, entry string) error) error {
	return refusal(pgx.BeginFunc(ctx, r.conn, func(tx pgx.Tx) error {
		if err := insertEvents(ctx, tx, []*audit.Entry{e}); err != nil {
			return err
		}
		return work(tx, string(e.ID))
	}))
}

// Holds returns the holds, those in force first.
func (r *Retention) Holds(ctx context.Context) ([]Hold, error) {
	rows, err := r.conn.Query(ctx, `select name, coalesce(patient_id, ''), from_month, until_month, placed_at, ended_at from audit.hold order by ended_at nulls first, name`)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (h Hold, err error) {
		return h, row.Scan(&h.Name, &h.Patient, &h.From, &h.Until, &h.PlacedAt, &h.EndedAt)
	})
	return out, postgres.Unavailable(err)
}

// loadPruned reads what the retention policy has dropped, and believes it of a
// month only when a sealed entry of the log says the same, six years after.
func (c *check) loadPruned(ctx context.Context) error {
	rows, err := c.s.main().Query(ctx, `
select case when isfinite(month) then month else '0001-01-01' end, coalesce(first_index, -1), coalesce(last_index, -1), coalesce(entries, -1),
       coalesce(encode(export_sha256, 'hex'), ''), coalesce(event_id::text, $2) from audit.pruned_month where epoch = $1 order by month`, c.log.Epoch, noID)
	if err != nil {
		return postgres.Unavailable(err)
	}
	type dropped struct {
		month                time.Time
		first, last, entries int64
		digest, id           string
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (d dropped, err error) {
		return d, row.Scan(&d.month, &d.first, &d.last, &d.entries, &d.digest, &d.id)
	})
	if err != nil {
		return postgres.Unavailable(err)
	}
	var p prunedPlaces
	for _, d := range all {
		found, err := c.s.query(ctx, 0, `select `+recordColumns+` from audit.event e where e.event_id = $1::text::uuid`, d.id)
		if err != nil {
			return err
		}
		good := len(found) == 1
		if good {
			e := found[0]
			detail, err := audit.ParseDetail(e.Detail)
			good = err == nil && e.Action == "retention.prune" && e.ActorIssuer == "medirecord" && e.ActorSubject == "service:retention" && e.Outcome == "success" &&
				e.ResourceID == fmt.Sprintf("%s/%d", d.month.Format("2006-01"), c.log.Epoch) && int64(detail.Counts["first"]) == d.first &&
				int64(detail.Counts["last"]) == d.last && int64(detail.Counts["entries"]) == d.entries && detail.Digest == d.digest &&
				!e.RecordedAt.Before(d.month.AddDate(LeastRetention, 1, 0)) && !e.RecordedAt.After(c.opt.Now().Add(clockSlack)) && c.isSealed(ctx, e)
		}
		if !good {
			c.tell(audit.Missing, -1, d.month.Format("2006-01")+" was dropped, and no sealed entry says so as the retention policy asks")
			continue
		}
		if err := p.load(ctx, c, d.month, d.first, d.last, d.entries); err != nil {
			return err
		}
	}
	if len(p.index) > 0 {
		c.pruned = p.find
	}
	return nil
}

// clockSlack is by how much the database's clock may be ahead of the verifier's.
// Whoever wrote an entry of years to come, to drop what is young, is found out.
const clockSlack = time.Hour

// isSealed reports whether the entry's own hash stands in the log.
func (c *check) isSealed(ctx context.Context, e audit.Row) bool {
	var epoch int32
	if err := c.s.main().QueryRow(ctx, `
select b.epoch from audit.batch b where (b.hi_epoch, b.hi_tx, b.hi_id) >= ($1, $2::text::xid8, $3::uuid) order by b.hi_epoch, b.hi_tx, b.hi_id limit 1`,
		e.Epoch, fmt.Sprint(e.TX), e.ID.String()).Scan(&epoch); err != nil {
		return false
	}
	i, err := c.s.index(ctx, epoch, place{e.Epoch, e.TX, e.ID.String()})
	if err != nil {
		return false
	}
	leaves, err := leavesOf(ctx, c.s.main(), epoch, i, 1)
	return err == nil && leaves[0] == e.Hash
}

// prunedPlaces says of the places that were dropped whom they were about: 12
// bytes a place, and 32 a patient and month.
type prunedPlaces struct {
	index []int64
	who   []int32
	keys  []audit.PatientKey
}

func (p *prunedPlaces) load(ctx context.Context, c *check, month time.Time, first, last, entries int64) error {
	rows, err := c.s.main().Query(ctx, `
select key, array(select i from unnest(indexes) i where i is not null) from audit.pruned where epoch = $1 and month = $2`, c.log.Epoch, month)
	if err != nil {
		return postgres.Unavailable(err)
	}
	type one struct {
		index int64
		who   int32
	}
	var all []one
	var key []byte
	var indexes []int64
	_, err = pgx.ForEachRow(rows, []any{&key, &indexes}, func() error {
		var k audit.PatientKey
		copy(k[:], key)
		p.keys = append(p.keys, k)
		for _, i := range indexes {
			all = append(all, one{i, int32(len(p.keys) - 1)})
		}
		return nil
	})
	if err != nil {
		return postgres.Unavailable(err)
	}
	for i := range p.index {
		all = append(all, one{p.index[i], p.who[i]})
	}
	before := int64(len(p.index))
	slices.SortFunc(all, func(a, b one) int { return int(a.index - b.index) })
	p.index, p.who = p.index[:0], p.who[:0]
	inside := int64(0)
	for _, o := range all {
		p.index, p.who = append(p.index, o.index), append(p.who, o.who)
		if o.index >= first && o.index <= last {
			inside++
		}
	}
	if n := int64(len(all)) - before; n != entries || inside < n {
		c.tell(audit.BadMap, -1, fmt.Sprintf("of %s, which was dropped, %d places are kept, and its entry says %d between %d and %d", month.Format("2006-01"), n, entries, first, last))
	}
	return nil
}

func (p *prunedPlaces) find(index int64) (audit.PatientKey, bool, bool) {
	i, ok := slices.BinarySearch(p.index, index)
	if !ok {
		return audit.PatientKey{}, false, false
	}
	key := p.keys[p.who[i]]
	return key, key != audit.PatientKey{}, true
}
