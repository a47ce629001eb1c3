// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/postgres"
)

// ended holds the end of a closed epoch against what the beginning of the next
// says of it, which the next epoch's own heads prove: or its last entries could
// be cut off together with their heads, and nothing here would know of them.
func (c *check) ended(ctx context.Context) error {
	var next int32
	var previous *string
	var before, tied bool
	if err := c.s.main().QueryRow(ctx, `
select exists (select from audit.epoch where epoch = $1::bigint - 1), exists (select from audit.epoch where epoch = $1 and previous is not null)`, c.log.Epoch).
		Scan(&before, &tied); err != nil {
		return postgres.Unavailable(err)
	}
	switch {
	case c.log.Epoch < 1:
		c.tell(audit.BadBatch, -1, "there is no epoch of this number: its row was changed")
	case c.log.Epoch == 1 && tied:
		c.tell(audit.BadHead, -1, "the row of the first epoch names one before it")
	case c.log.Epoch > 1 && !before:
		c.tell(audit.Missing, -1, fmt.Sprintf("epoch %d, which came before, is not there", c.log.Epoch-1))
	}
	err := c.s.main().QueryRow(ctx, `select epoch, previous from audit.epoch where epoch > $1 order by epoch limit 1`, c.log.Epoch).Scan(&next, &previous)
	if errors.Is(err, pgx.ErrNoRows) {
		return c.beyond()
	}
	if err != nil {
		return postgres.Unavailable(err)
	}
	if next != c.log.Epoch+1 {
		return nil // which is told where that is verified
	}
	return c.beginning(ctx, next, previous)
}

// beginning reads what the next epoch says when it begins: in its row, and in
// its first entry of its own, which is an entry of its log like all others.
func (c *check) beginning(ctx context.Context, next int32, previous *string) error {
	from := fmt.Sprintf("the beginning of epoch %d", next)
	found, err := c.s.query(ctx, 0, `select `+recordColumns+` from audit.event e
 where e.epoch = $1 and e.action = 'epoch.begin' and e.actor_issuer = 'medirecord' and e.actor_subject = 'service:sealer' order by e.tx, e.event_id limit 1`, next)
	if err != nil {
		return err
	}
	if len(found) == 0 {
		if previous != nil {
			c.hold(signedNote{size: -1, note: *previous}, "the checkpoint in the row of epoch "+strconv.Itoa(int(next)), from)
		}
		return c.unbegun(ctx, next)
	}
	d, err := audit.ParseDetail(found[0].Detail)
	if err != nil {
		c.tell(audit.BadHead, -1, from+" does not read")
		return nil //nolint:nilerr // the finding is what became of it
	}
	if d.Checkpoint != "" {
		c.hold(signedNote{size: -1, note: d.Checkpoint}, "the checkpoint in "+from, from)
	}
	if previous != nil && *previous != d.Checkpoint || previous == nil && d.Checkpoint != "" {
		c.tell(audit.BadHead, -1, fmt.Sprintf("the row of epoch %d and its first entry say two ends of this one", next))
	}
	if d.Checkpoint == "" && d.Ended == nil {
		c.opt.Tell(audit.Finding{Kind: audit.Gap, Epoch: c.log.Epoch, Index: c.log.Size, Note: from + " does not say where this one ended"})
	}
	if e := d.Ended; e != nil {
		c.heads = append(c.heads, audit.Head{Checkpoint: audit.Checkpoint{Origin: c.log.Origin, Size: e.Size, Root: e.Root, Patients: e.Patients}, From: from})
	}
	return nil
}

// unbegun tells when the next epoch has entries, and none that begins it.
func (c *check) unbegun(ctx context.Context, next int32) error {
	var sealed, pruned bool
	if err := c.s.main().QueryRow(ctx, `
select exists (select from audit.batch where epoch = $1), exists (select from audit.pruned_month where epoch = $1)`, next).Scan(&sealed, &pruned); err != nil {
		return postgres.Unavailable(err)
	}
	if sealed && !pruned {
		c.opt.Tell(audit.Finding{
			Kind: audit.Gap, Epoch: c.log.Epoch, Index: c.log.Size,
			Note: fmt.Sprintf("the entry that begins epoch %d, and says where this one ended, is not there: whether more was sealed is not known", next),
		})
	}
	return nil
}

// beyond tells of epochs that are kept outside and came after the newest here.
func (c *check) beyond() error {
	stem, number, ok := strings.Cut(c.log.Origin, "/"+strconv.Itoa(int(c.log.Epoch)))
	if c.opt.Outside == nil || !ok || number != "" {
		return nil
	}
	kept, err := c.opt.Outside(fmt.Sprintf("%s/%d", stem, c.log.Epoch+1))
	if err != nil {
		return err
	}
	top := kept.Largest()
	if top == nil {
		return nil
	}
	c.opt.Tell(audit.Finding{Kind: audit.RolledBack, Epoch: c.log.Epoch, Index: -1, Note: fmt.Sprintf("%s knows of %d entries of epoch %d, which is not in the database: it was put back to an older state", top.From, top.Size, c.log.Epoch+1)})
	return nil
}
