// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/med"
)

// PatientRow is a patient's row as it stands: sealed.
type PatientRow struct {
	Practice   med.PracticeID
	Version    int64
	DEKVersion int32
	KeyState   string
	Sealed     []byte
	CreatedAt  time.Time
	UpdatedAt  time.Time
	Deleted    bool
	Self       bool // the context's person is this patient
}

// Patient reads one patient's sealed row under a signed context. It reports
// NotFound when row security shows no row, whatever the reason; Refused when
// the context is not valid.
//
// Concurrent reads share a statement: each is still read under its own
// context, by medirecord.read_patient, but they share its round trip, its
// parse and its snapshot, which is where the time of a single read goes.
func (db *DB) Patient(ctx context.Context, signed string, id med.PatientID) (*PatientRow, error) {
	return db.reads.read(ctx, signed, id)
}

const readPatients = `
select q.n, p.practice_id, p.version, p.dek_version, p.key_state, p.sealed, p.created_at, p.updated_at, p.deleted, p.self
  from unnest($1::text[], $2::text[]) with ordinality as q(context, id, n)
 cross join lateral medirecord.read_patient(q.context, q.id) p`

// maxShared bounds how many reads share a statement, and so how long the first
// waits for the last.
const maxShared = 32

type question struct {
	signed string
	id     med.PatientID
	row    *PatientRow
	err    error
	done   chan struct{}
}

// reader coalesces: while its connections are busy, questions gather; a free
// connection takes all that wait. An idle reader asks at once.
type reader struct {
	db    *DB
	in    chan *question
	stop  chan struct{}
	group sync.WaitGroup
}

func newReader(db *DB, conns int) *reader {
	r := &reader{db: db, in: make(chan *question, 4096), stop: make(chan struct{})}
	for range conns {
		r.group.Go(r.run)
	}
	return r
}

func (r *reader) close() {
	close(r.stop)
	r.group.Wait()
}

func (r *reader) read(ctx context.Context, signed string, id med.PatientID) (*PatientRow, error) {
	ctx, cancel := context.WithTimeout(ctx, r.db.deadline)
	defer cancel()
	q := &question{signed: signed, id: id, done: make(chan struct{})}
	select {
	case r.in <- q:
	default:
		return nil, med.DatabaseUnavailable.Because(errors.New("read queue full"))
	}
	select {
	case <-q.done:
		return q.row, q.err
	case <-ctx.Done():
		return nil, med.DatabaseUnavailable.Because(ctx.Err())
	case <-r.stop:
		return nil, med.DatabaseUnavailable.Because(errors.New("closing"))
	}
}

func (r *reader) run() {
	batch := make([]*question, 0, maxShared)
	for {
		batch = batch[:0]
		select {
		case <-r.stop:
			return
		case q := <-r.in:
			batch = append(batch, q)
		}
	more:
		for len(batch) < maxShared {
			select {
			case q := <-r.in:
				batch = append(batch, q)
			default:
				break more
			}
		}
		r.ask(batch)
	}
}

func (r *reader) ask(batch []*question) {
	err := r.askTogether(batch)
	if err != nil && len(batch) > 1 && !unreachable(err) {
		// One context that expired on the way must not refuse the others.
		for _, q := range batch {
			q.row = nil
			q.err = r.askTogether([]*question{q})
		}
		err = nil
	}
	for _, q := range batch {
		switch {
		case err != nil:
			q.row, q.err = nil, Unavailable(err)
		case q.err != nil:
			q.row, q.err = nil, Unavailable(q.err)
		case q.row == nil:
			q.err = med.NotFound.New("")
		}
		close(q.done)
	}
}

func (r *reader) askTogether(batch []*question) error {
	// The readers outlive every request: a client that hangs up must not
	// cancel the statement of the others.
	ctx, cancel := context.WithTimeout(context.Background(), r.db.deadline) //nolint:forbidigo // see above
	defer cancel()
	contexts, ids := make([]string, len(batch)), make([]string, len(batch))
	for i, q := range batch {
		contexts[i], ids[i] = q.signed, string(q.id)
	}
	rows, err := r.db.pool.Query(ctx, readPatients, contexts, ids)
	if err != nil {
		return err
	}
	var n int64
	var p PatientRow
	_, err = pgx.ForEachRow(rows, []any{
		&n, (*string)(&p.Practice), &p.Version, &p.DEKVersion, &p.KeyState, &p.Sealed, &p.CreatedAt, &p.UpdatedAt, &p.Deleted, &p.Self,
	}, func() error {
		row := p
		row.Sealed = append([]byte(nil), p.Sealed...)
		batch[n-1].row = &row
		return nil
	})
	return err
}
