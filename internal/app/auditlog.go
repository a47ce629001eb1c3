// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"regexp"

	"github.com/jackc/pgx/v5"
	"golang.org/x/mod/sumdb/note"

	"github.com/medirecord/medirecord/internal/postgres"
)

var logName = regexp.MustCompile(`^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*/[1-9][0-9]{0,5}$`)

// NewTrailKey makes a key of the log with this name: the signing and the
// verifying half, as C2SP signed-note writes them.
func NewTrailKey(origin string) (signer, verifier string, err error) {
	if !logName.MatchString(origin) || len(origin) > 200 {
		return "", "", errors.New("--origin must be the log's name and its epoch, such as medirecord.example/audit/1")
	}
	return note.GenerateKey(rand.Reader, origin)
}

// BeginEpoch begins a new epoch of the log and returns its number and name.
func BeginEpoch(ctx context.Context, cfg *Config) (epoch int, origin string, err error) {
	if err := cfg.need("beginning an epoch", "MEDIRECORD_MIGRATE_DATABASE_URL"); err != nil {
		return 0, "", err
	}
	if err := postgres.CheckTransport("MEDIRECORD_MIGRATE_DATABASE_URL", cfg.MigrateDatabaseURL, cfg.Dev()); err != nil {
		return 0, "", err
	}
	err = connected(ctx, cfg.MigrateDatabaseURL, func(conn *pgx.Conn) error {
		if err := conn.QueryRow(ctx, `select audit.begin_epoch()`).Scan(&epoch); err != nil {
			return fmt.Errorf("beginning an epoch: %w", postgres.Unavailable(err))
		}
		return conn.QueryRow(ctx, `select audit.epoch_name($1)`, epoch).Scan(&origin)
	})
	return epoch, origin, err
}
