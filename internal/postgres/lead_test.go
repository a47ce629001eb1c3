// SPDX-License-Identifier: Apache-2.0

package postgres_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/medirecord/medirecord/internal/medtest"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Of several workers one does the work. Who only serves must not look like that
// one: nothing would be watched, and nobody told.
func TestWhoLeads(t *testing.T) {
	t.Parallel()
	db := medtest.DB(t)
	super, app := db.Super(t), db.As(t, "app")
	one, two := db.As(t, "worker"), db.As(t, "worker")
	ways := map[string]struct {
		lead func() (bool, error) // of the second worker
		lock string
	}{
		"one number":  {func() (bool, error) { return postgres.LeadBy(t.Context(), two, 77) }, `pg_advisory_lock(77)`},
		"two numbers": {func() (bool, error) { return postgres.Lead(t.Context(), two, 78, -79) }, `pg_advisory_lock(78, -79)`},
	}
	for name, way := range ways {
		medtest.Exec(t, one, `select `+way.lock)
		if ours, err := way.lead(); ours || err != nil {
			t.Errorf("%s: got %v %v while another worker leads", name, ours, err)
		}
		medtest.Exec(t, one, `select pg_advisory_unlock_all()`)
		// On a server whose superuser is somebody else's, everybody may take locks.
		medtest.Exec(t, super, `grant execute on function pg_advisory_lock(bigint), pg_advisory_lock(int, int) to medirecord_app`)
		medtest.Exec(t, app, `select `+way.lock)
		if ours, err := way.lead(); ours || !errors.Is(err, postgres.ErrUsurped) || !strings.Contains(err.Error(), "medirecord_app") {
			t.Errorf("%s: got %v %v while the API has the lock", name, ours, err)
		}
		medtest.Exec(t, app, `select pg_advisory_unlock_all()`)
		if ours, err := way.lead(); !ours || err != nil {
			t.Errorf("%s: got %v %v while nobody leads", name, ours, err)
		}
	}
}
