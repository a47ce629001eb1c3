// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/medtest"
)

// What each context that reads the trail is shown of it: the detail of each
// entry of the world names its patient.
func TestWhatOfTheTrailAContextOpens(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	conn := w.db.As(t, "app")
	for name, tc := range map[string]struct {
		with caller
		want string
	}{
		"an officer, of the practice":              {auditor("north"), "north-1 north-2 north-gone"},
		"an officer, of one patient":               {*reading(officer("north", "north-1")), "north-1"},
		"an admin, of a deleted patient":           {*reading(admin("north", "north-gone", true)), "north-gone"},
		"a patient, of themselves":                 {*reading(patient("north-1", "north-1")), "north-1"},
		"a patient by a link":                      {*reading(known("linked", "south-1")), "south-1"},
		"an admin whose own record it is, of that": {func() caller { c := *reading(admin("north", "south-1", true)); c.Self = "south-1"; return c }(), "south-1"},
	} {
		t.Run(name, func(t *testing.T) {
			medtest.Exec(t, conn, "begin")
			medtest.Exec(t, conn, `select set_config('medirecord.ctx', $1, true)`, tc.with.signed(t))
			rows, err := conn.Query(t.Context(), `select distinct patient_id from audit.event order by 1`)
			if err != nil {
				t.Fatal(err)
			}
			got, err := pgx.CollectRows(rows, pgx.RowTo[string])
			if err != nil || strings.Join(got, " ") != tc.want {
				t.Errorf("got %v %v, want %s", got, err, tc.want)
			}
			medtest.Exec(t, conn, "rollback")
		})
	}
}
