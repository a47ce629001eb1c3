// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/postgres"
)

// ErrLed says that another replica has the cursor.
var ErrLed = errors.New("another replica has this cursor")

// cursorLock is the first half of the advisory locks of cursors.
const cursorLock = 723749

// cursorWithin bounds each statement of a cursor.
const cursorWithin = 5 * time.Second

// Cursor is how far one consumer has the sealed trail, kept in the database.
// While it is held, nobody else has it: it is an advisory lock of a connection
// of its own, and every statement of the cursor goes through that connection,
// so that whoever has lost the lock cannot move the cursor either.
type Cursor struct {
	conn  *pgx.Conn
	name  string
	Epoch int32
	Next  int64 // index of the first entry that the consumer does not have
}

// Lead takes the cursor of that name, or reports ErrLed. One that is new
// begins at the beginning of the log, or behind what is sealed now.
func (r *Reader) Lead(ctx context.Context, name string, fromNow bool) (*Cursor, error) {
	ctx, cancel := context.WithTimeout(ctx, cursorWithin)
	defer cancel()
	conn, err := pgx.ConnectConfig(ctx, r.pool.Config().ConnConfig)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	c := &Cursor{conn: conn, name: name}
	if err := c.take(ctx, fromNow); err != nil {
		c.Close()
		return nil, postgres.Unavailable(err)
	}
	return c, nil
}

func (c *Cursor) take(ctx context.Context, fromNow bool) error {
	var number int32
	if err := c.conn.QueryRow(ctx, `select hashtext($1)`, c.name).Scan(&number); err != nil {
		return err
	}
	mine, err := postgres.Lead(ctx, c.conn, cursorLock, number)
	if err != nil {
		return err
	}
	if !mine {
		return ErrLed
	}
	if _, err := c.conn.Exec(ctx, `
insert into audit.sink (name, epoch, next_index)
select $1, p.epoch, case when $2 then coalesce((select b.first_index + b.n from audit.batch b where b.epoch = p.epoch order by b.batch desc limit 1), 0) else 0 end
  from audit.epoch p order by case when $2 then -p.epoch else p.epoch end limit 1
on conflict (name) do nothing`, c.name, fromNow); err != nil {
		return err
	}
	err = c.conn.QueryRow(ctx, `select epoch, next_index from audit.sink where name = $1`, c.name).Scan(&c.Epoch, &c.Next)
	if errors.Is(err, pgx.ErrNoRows) {
		return ErrNoLog
	}
	return err
}

// ErrNoLog says that nothing was ever sealed.
var ErrNoLog = errors.New("the trail has no log yet: the sealer begins it")

// Advance says that the consumer has everything before that place. It reports
// an error when the cursor would go back, and when the lock is lost.
func (c *Cursor) Advance(ctx context.Context, epoch int32, next int64) error {
	ctx, cancel := context.WithTimeout(ctx, cursorWithin)
	defer cancel()
	// With the place it was read at: an operator may have moved it meanwhile.
	tag, err := c.conn.Exec(ctx, `
update audit.sink set epoch = $4, next_index = $5, updated_at = clock_timestamp(), last_error = null
 where name = $1 and epoch = $2 and next_index = $3`, c.name, c.Epoch, c.Next, epoch, next)
	if err != nil {
		return postgres.Unavailable(err)
	}
	if tag.RowsAffected() == 0 {
		return errors.New("the cursor was moved by somebody else")
	}
	c.Epoch, c.Next = epoch, next
	return nil
}

// Failed notes the code of what the consumer's last failure was, and reads
// anew where the cursor is: an operator may have moved it past what failed.
func (c *Cursor) Failed(ctx context.Context, code string) error {
	ctx, cancel := context.WithTimeout(ctx, cursorWithin)
	defer cancel()
	err := c.conn.QueryRow(ctx, `update audit.sink set last_error = $2, updated_at = clock_timestamp() where name = $1 returning epoch, next_index`, c.name, code).
		Scan(&c.Epoch, &c.Next)
	return postgres.Unavailable(err)
}

// Close gives the cursor back.
func (c *Cursor) Close() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second) //nolint:forbidigo // the caller's context may have ended, and the lock must go
	defer cancel()
	_ = c.conn.Close(ctx) // with the connection goes the lock
}

// Progress is how far a consumer is, and how far behind.
type Progress struct {
	Name      string
	Epoch     int32
	Next      int64
	UpdatedAt time.Time
	LastError string        // a code, "" when the last attempt went well
	Behind    int64         // sealed entries that it does not have
	Age       time.Duration // how long ago the oldest of those was sealed, by the database's clock
}

// Progress returns the consumers that there ever were, by name.
func (r *Reader) Progress(ctx context.Context) ([]Progress, error) {
	rows, err := r.pool.Query(ctx, `
select s.name, s.epoch, s.next_index, s.updated_at, coalesce(s.last_error, ''),
       (select coalesce(sum(b.size), 0)::bigint
          from audit.epoch p
          cross join lateral (select b.first_index + b.n as size from audit.batch b where b.epoch = p.epoch order by b.batch desc limit 1) b
         where p.epoch >= s.epoch) - s.next_index,
       extract(epoch from clock_timestamp() - coalesce(
         (select b.sealed_at
            from (select b.first_index + b.n as behind, b.sealed_at from audit.batch b
                   where b.epoch = s.epoch and b.first_index <= s.next_index order by b.first_index desc limit 1) b
           where b.behind > s.next_index),
         (select b.sealed_at from audit.batch b where b.epoch > s.epoch order by b.epoch, b.first_index limit 1),
         clock_timestamp()))::float8
  from audit.sink s order by s.name`)
	if err != nil {
		return nil, postgres.Unavailable(err)
	}
	out, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (p Progress, err error) {
		var age float64
		err = row.Scan(&p.Name, &p.Epoch, &p.Next, &p.UpdatedAt, &p.LastError, &p.Behind, &age)
		p.Behind, p.Age = max(p.Behind, 0), max(time.Duration(age*float64(time.Second)), 0)
		return p, err
	})
	return out, postgres.Unavailable(err)
}

// IDAt returns the id of a sealed entry by its place, although the entry
// itself may be gone.
func (r *Reader) IDAt(ctx context.Context, epoch int32, index int64) (string, error) {
	var id string
	err := r.pool.QueryRow(ctx, `
select encode(substring(b.ids from (16 * ($2::bigint - b.first_index) + 1)::integer for 16), 'hex')::uuid::text
  from audit.batch b where b.epoch = $1 and b.first_index <= $2 order by b.first_index desc limit 1`, epoch, index).Scan(&id)
	return id, postgres.Unavailable(err)
}
