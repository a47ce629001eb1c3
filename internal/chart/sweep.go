// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/audit"
	"github.com/medirecord/medirecord/internal/med"
)

// Swept counts what a sweep of one practice takes away, and what it settles.
type Swept struct {
	RequestsForgotten        int // a day after they were made once
	KeysSettled, KeysDeleted int // whose patient came, and did not
}

// RecordSweep writes the entry of a sweep, in its transaction; none when it found
// nothing to do. The grants that a sweep ends have entries of their own.
func RecordSweep(ctx context.Context, tx pgx.Tx, ruling *med.Ruling, practice med.PracticeID, now time.Time, n Swept) error {
	if n == (Swept{}) {
		return nil
	}
	me := Worker()
	e := audit.New(now, &me, "sweep", "practice", string(practice))
	e.ContextNonce, e.ContextMAC, e.Detail.Revision = ruling.Nonce, ruling.MAC, ruling.Revision
	e.Detail.Counts = map[string]int{"requests_forgotten": n.RequestsForgotten, "keys_settled": n.KeysSettled, "keys_deleted": n.KeysDeleted}
	e.Outcome = audit.Success
	return appendTx(ctx, tx, e)
}
