// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// maxOdd is how many rows that are none are told of, a table and epoch.
const maxOdd = 1000

// measure finds out how long the log is, and tells of rows that no sealer wrote.
// Whoever can lift the tables' checks can write any number into them: the log
// is no longer than its tiles, its lists or a signed head say that it can be.
func (c *check) measure(ctx context.Context) error {
	var most int64
	if err := c.s.main().QueryRow(ctx, `
select greatest(256 * (select count(*) from audit.tile where epoch = $1 and level = 0), (select coalesce(sum(b.n), 0) from audit.batch b where b.epoch = $1 and `+wellFormed+`))::bigint`,
		c.log.Epoch).Scan(&most); err != nil {
		return postgres.Unavailable(err)
	}
	if top := largest(c.heads); top != nil {
		most = max(most, top.Size)
	}
	if err := c.s.main().QueryRow(ctx, `
select coalesce(max(b.first_index + b.n), 0) from audit.batch b where b.epoch = $1 and `+wellFormed+` and b.first_index <= $2 - b.n`, c.log.Epoch, most).
		Scan(&c.log.Size); err != nil {
		return postgres.Unavailable(err)
	}
	c.out.Size = c.log.Size
	if err := c.oddBatches(ctx); err != nil {
		return err
	}
	return c.oddTiles(ctx)
}

func (c *check) oddBatches(ctx context.Context) error {
	rows, err := c.s.main().Query(ctx, `
select coalesce(b.batch, -1), case when b.first_index between 0 and $2 then b.first_index else -1 end from audit.batch b
 where b.epoch = $1 and (`+wellFormed+` and b.first_index <= $2 - b.n) is not true order by 1 limit $3`, c.log.Epoch, c.log.Size, maxOdd)
	if err != nil {
		return postgres.Unavailable(err)
	}
	var number, first int64
	_, err = pgx.ForEachRow(rows, []any{&number, &first}, func() error {
		c.tell(audit.BadBatch, first, fmt.Sprintf("batch %d is none: no sealer wrote its bounds", number))
		return nil
	})
	return postgres.Unavailable(err)
}

// oddTiles tells of tiles that are outside of the tree, and of bytes behind a
// tile's end. What is missing in one is told where its hashes are read.
func (c *check) oddTiles(ctx context.Context) error {
	rows, err := c.s.main().Query(ctx, `
select coalesce(t.level, -1), coalesce(t.idx, -1) from audit.tile t
 where t.epoch = $1 and (case when t.level between 0 and 7 and t.idx between 0 and $2::bigint >> (8 * t.level + 8)
                              then length(t.data) <= 32 * least(256, ($2::bigint >> (8 * t.level)) - 256 * t.idx) or t.data is null end) is not true
 order by 1, 2 limit $3`, c.log.Epoch, c.log.Size, maxOdd)
	if err != nil {
		return postgres.Unavailable(err)
	}
	var level, idx int64
	_, err = pgx.ForEachRow(rows, []any{&level, &idx}, func() error {
		c.tell(audit.BadTile, -1, fmt.Sprintf("tile %d of level %d is outside of the tree, or goes on behind its end", idx, level))
		return nil
	})
	return postgres.Unavailable(err)
}
