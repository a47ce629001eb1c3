// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"cmp"
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/postgres/pgdb"
)

// TrailQuery asks for one page of the trail, newest first. What is empty does
// not narrow it. The practice, or the patient when Whose is set, chooses the
// index; row security decides what may be read.
type TrailQuery struct {
	Practice string
	// Whose is the patient whose entries are walked; Who the person of the
	// practice's trail, and Glass, "true", its break-glass.
	Whose, Who, Glass               string
	Patient, Actor, Action, Outcome string
	Since, Until                    time.Time // from, and before
	Before                          string    // the entry before which to begin, at Until; "" is the first of that instant
	Limit                           int32
}

// TrailRow is an entry as the trail has it.
type TrailRow = pgdb.PracticeTrailRow

// TrailPage is one page of the trail, and where the next begins.
type TrailPage struct {
	Rows   []TrailRow
	More   bool // entries were left unread
	Until  time.Time
	Before string
}

// scanned is how many entries a page with filters looks at: one that matches
// little ends there, and the next goes on.
const scanned = 5000

// firstEvent is before every event of its instant.
const firstEvent = "00000000-0000-0000-0000-000000000000"

// Trail reads one page in the transaction, under its context.
func (db *DB) Trail(ctx context.Context, tx pgx.Tx, q TrailQuery) (TrailPage, error) {
	scan := q.Limit + 1
	if q.Patient != "" || q.Actor != "" || q.Action != "" || q.Outcome != "" || q.Glass != "" {
		scan = scanned
	}
	p := pgdb.PracticeTrailParams{
		MaxRows: q.Limit, Practice: q.Practice, Since: q.Since, Until: q.Until, Before: cmp.Or(q.Before, firstEvent), Scan: scan,
		Action: q.Action, Outcome: q.Outcome, Patient: q.Patient, Actor: q.Actor, Glass: q.Glass,
	}
	rows, err := db.walk(ctx, tx, q, p)
	if err != nil {
		return TrailPage{}, err
	}
	return pageOf(rows, q.Limit, scan), nil
}

// walk chooses the index that has the least to look at.
func (db *DB) walk(ctx context.Context, tx pgx.Tx, q TrailQuery, p pgdb.PracticeTrailParams) ([]TrailRow, error) {
	switch {
	case q.Whose != "":
		rows, err := db.Q.PatientTrail(ctx, tx, pgdb.PatientTrailParams{
			MaxRows: p.MaxRows, Whose: q.Whose, Since: p.Since, Until: p.Until, Before: p.Before, Scan: p.Scan,
			Action: p.Action, Outcome: p.Outcome, Patient: p.Patient, Actor: p.Actor, Glass: p.Glass,
		})
		return alike(rows, func(r pgdb.PatientTrailRow) TrailRow { return TrailRow(r) }), err
	case q.Who != "":
		rows, err := db.Q.ActorTrail(ctx, tx, pgdb.ActorTrailParams{
			MaxRows: p.MaxRows, Practice: p.Practice, Who: q.Who, Since: p.Since, Until: p.Until, Before: p.Before, Scan: p.Scan,
			Action: p.Action, Outcome: p.Outcome, Patient: p.Patient, Actor: p.Actor, Glass: p.Glass,
		})
		return alike(rows, func(r pgdb.ActorTrailRow) TrailRow { return TrailRow(r) }), err
	case q.Glass == "true":
		rows, err := db.Q.GlassTrail(ctx, tx, pgdb.GlassTrailParams(p))
		return alike(rows, func(r pgdb.GlassTrailRow) TrailRow { return TrailRow(r) }), err
	}
	return db.Q.PracticeTrail(ctx, tx, p)
}

func alike[R any](rows []R, as func(R) TrailRow) []TrailRow {
	out := make([]TrailRow, len(rows))
	for i, r := range rows {
		out[i] = as(r)
	}
	return out
}

// pageOf takes the rows that are shown, and finds where to read on: after the
// last of a full page, else after the last that was looked at.
func pageOf(rows []TrailRow, limit, scan int32) TrailPage {
	var p TrailPage
	for i := range rows {
		r := &rows[i]
		if r.Shown {
			p.Rows = append(p.Rows, *r)
		}
		full := len(p.Rows) == int(limit)
		if r.Shown || !full {
			p.Until, p.Before = r.OccurredAt, r.EventID
			p.More = r.Place < r.LookedAt || r.LookedAt == int64(scan)
		}
	}
	return p
}
