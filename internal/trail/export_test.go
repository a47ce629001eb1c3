// SPDX-License-Identifier: Apache-2.0

package trail

import (
	"context"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/tlog"
)

// Hashes hashes every entry that a connection sees.
func Hashes(ctx context.Context, conn *pgx.Conn) (map[string]tlog.Hash, error) {
	rows, err := (&Snapshot{conns: []*pgx.Conn{nil, conn}}).query(ctx, 0, `select `+recordColumns+` from audit.event e`)
	out := map[string]tlog.Hash{}
	for _, r := range rows {
		out[r.ID.String()] = r.Hash
	}
	return out, err
}

// WithFault makes the sealer fail where f says.
func (c SealerConfig) WithFault(f func(step string) error) SealerConfig {
	c.fault = f
	return c
}
