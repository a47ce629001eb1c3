// SPDX-License-Identifier: Apache-2.0

package postgres

import (
	"context"
	"errors"
	"runtime"
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
	Manifest   ManifestRow
}

// Patient reads one patient's sealed row under a signed context. It reports
// NotFound when row security shows no row, whatever the reason; Refused when
// the context is not valid. A strict context shows a row only against its
// ticket, an entry of the trail that is committed; ticket is empty for any other.
//
// Concurrent reads share a statement, medirecord.read_patients: each row is
// read by the doors of its own context, but they share the round trip, the
// snapshot and the executor's start, which is where the time of a single read
// goes.
func (db *DB) Patient(ctx context.Context, signed string, ticket med.EventID, id med.PatientID) (*PatientRow, error) {
	return db.reads.read(ctx, signed, ticket, id)
}

const readPatients = `
select n, patient, practice_id, version, dek_version, key_state, sealed, created_at, updated_at, deleted, self,
       coalesce(manifest_version, 0), coalesce(manifest_dek, 0), manifest
  from medirecord.read_patients($1::text[], $2::text[], true)`

// maxShared bounds how many reads share a statement, and so how long the first
// waits for the last.
const maxShared = 32

type question struct {
	signed string
	ticket med.EventID // "" unless the context is strict
	id     med.PatientID
	valid  bool // the database took the context
	row    *PatientRow
	err    error
	done   chan struct{}
}

// reader coalesces: while a statement is under way, questions gather for the
// next. An idle reader asks at once; a full statement does not wait for the one
// before, so that a machine with cores to spare uses them.
type reader struct {
	db    *DB
	in    chan *question
	turn  chan struct{} // holds one: who gathers has it
	stop  chan struct{}
	group sync.WaitGroup
}

func newReader(db *DB, conns int) *reader {
	r := &reader{db: db, in: make(chan *question, 4096), turn: make(chan struct{}, 1), stop: make(chan struct{})}
	r.turn <- struct{}{}
	for range conns {
		r.group.Go(r.run)
	}
	return r
}

func (r *reader) close() {
	close(r.stop)
	r.group.Wait()
}

func (r *reader) read(ctx context.Context, signed string, ticket med.EventID, id med.PatientID) (*PatientRow, error) {
	q := &question{signed: signed, ticket: ticket, id: id, done: make(chan struct{})}
	select {
	case r.in <- q:
	default:
		return nil, med.DatabaseUnavailable.Because(errors.New("read queue full"))
	}
	late := time.NewTimer(r.db.deadline)
	defer late.Stop()
	select {
	case <-q.done:
		return q.row, q.err
	case <-late.C:
		return nil, med.DatabaseUnavailable.Because(context.DeadlineExceeded)
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
		case <-r.turn:
		}
		select {
		case <-r.stop:
			return
		case q := <-r.in:
			batch = append(batch, q)
		}
		// Who is ready to ask does so now, and shares the statement: the answers of
		// the gate, for one, come many at a time.
		runtime.Gosched()
	more:
		for len(batch) < maxShared {
			select {
			case q := <-r.in:
				batch = append(batch, q)
			default:
				break more
			}
		}
		full := len(batch) == maxShared
		if full {
			r.turn <- struct{}{}
		}
		r.ask(batch)
		if !full {
			r.turn <- struct{}{}
		}
	}
}

func (r *reader) ask(batch []*question) {
	err := Unavailable(r.query(batch))
	for _, q := range batch {
		switch {
		case err != nil:
			q.row, q.err = nil, err
		case !q.valid:
			q.err = ErrContext
		case q.row == nil:
			q.err = med.NotFound.New("")
		}
		close(q.done)
	}
}

// ErrContext says that the database did not take a signed context: it has
// expired, or nobody we know signed it. It counts as Refused.
var ErrContext = &ServerError{Code: "42501", Table: "patient"}

func (r *reader) query(batch []*question) error {
	// The readers outlive every request: a client that hangs up must not
	// cancel the statement of the others.
	ctx, cancel := context.WithTimeout(context.Background(), r.db.deadline) //nolint:forbidigo // see above
	defer cancel()
	contexts, tickets := asked(batch)
	rows, err := r.db.pool.Query(ctx, readPatients, contexts, tickets)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := scanPatient(rows, batch); err != nil {
			return err
		}
	}
	return rows.Err()
}

// asked returns the batch's contexts and, place by place, their tickets; nil
// when there are none: then the database does not look for any.
func asked(batch []*question) (contexts, tickets []string) {
	contexts = make([]string, len(batch))
	for i, q := range batch {
		contexts[i] = q.signed
		if q.ticket != "" {
			if tickets == nil {
				tickets = make([]string, len(batch))
			}
			tickets[i] = string(q.ticket)
		}
	}
	return contexts, tickets
}

// scanPatient gives a row to the question whose context it was read under.
func scanPatient(rows pgx.Rows, batch []*question) error {
	var n int64
	var patient string
	var practice, keyState *string
	var version *int64
	var dek *int32
	var created, updated *time.Time
	var deleted, self *bool
	var sealed []byte
	var m ManifestRow
	if err := rows.Scan(&n, &patient, &practice, &version, &dek, &keyState, &sealed, &created, &updated, &deleted, &self,
		&m.Version, &m.DEKVersion, &m.Sealed); err != nil {
		return err
	}
	if n < 1 || int(n) > len(batch) {
		return errors.New("an answer to no question")
	}
	q := batch[n-1]
	q.valid = true
	if practice == nil || patient != string(q.id) { // a context for another patient shows nothing of this one
		return nil
	}
	q.row = &PatientRow{
		Practice: med.PracticeID(*practice), Version: *version, DEKVersion: *dek, KeyState: *keyState, Sealed: sealed,
		CreatedAt: *created, UpdatedAt: *updated, Deleted: *deleted, Self: *self, Manifest: m,
	}
	return nil
}
