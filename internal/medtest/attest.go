// SPDX-License-Identifier: Apache-2.0

package medtest

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/token"
)

// checkMACs holds every entry that names a context against the MAC that the
// sidecar made with it: no entry is of another's context. A patient read by a
// person has one.
func (d *Databases) checkMACs(t testing.TB) {
	t.Helper()
	attester := token.NewAttester([]token.ContextKey{ContextKey})
	super := d.Super(t)
	defer func() { _ = super.Close(context.Background()) }() // who waits for something calls this often
	rows, err := super.Query(context.Background(), `
select event_id::text, coalesce(parent_id, event_id)::text, parent_id is not null, actor_issuer, actor_subject, coalesce(actor_practice, ''),
       coalesce(patient_id, ''), action, outcome, coalesce(ctx_nonce, ''), coalesce(ctx_mac, ''), recorded_at
  from audit.event`)
	if err != nil {
		t.Fatal(err)
	}
	var id, action, outcome, mac string
	var child bool
	var c token.EntryClaims
	var recorded time.Time
	_, err = pgx.ForEachRow(rows, []any{&id, &c.Event, &child, &c.Issuer, &c.Subject, &c.Practice, &c.Patient, &action, &outcome, &c.Nonce, &mac, &recorded}, func() error {
		if c.Nonce == "" && mac == "" {
			if outcome == "success" && !token.IsService(c.Issuer, c.Subject) {
				t.Errorf("entry %s: a person's %s without a context", id, action)
			}
			return nil
		}
		err := attester.Attest(c, mac, recorded)
		if err != nil && child {
			one := c
			one.Patient = ""
			err = attester.Attest(one, mac, recorded)
		}
		if err != nil {
			t.Errorf("entry %s (%s): its MAC is not of its context: %v", id, action, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
