// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/medirecord/medirecord/internal/jobs"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/postgres"
)

var errBadURL = errors.New("a database URL cannot be read; it must look like postgres://user:password@host/database")

// Worker runs unattended work until the context ends: the trail's partitions
// ahead of time, and the sweeping of keys that no patient came for.
func Worker(ctx context.Context, cfg *Config, log *slog.Logger, ready func()) error {
	if err := cfg.checkFailMode(); err != nil {
		return err
	}
	if err := cfg.need("the worker", "CORESDK_SIDECAR_ADDR", "MEDIRECORD_WORKER_DATABASE_URL", "MEDIRECORD_KEYSTORE_DATABASE_URL", "MEDIRECORD_KEY_KEEPER"); err != nil {
		return err
	}
	for name, url := range map[string]string{"MEDIRECORD_WORKER_DATABASE_URL": cfg.WorkerDatabaseURL, "MEDIRECORD_KEYSTORE_DATABASE_URL": cfg.KeystoreDatabaseURL} {
		if err := postgres.CheckTransport(name, url, cfg.Dev()); err != nil {
			return err
		}
	}
	keeper, err := openKeeper(cfg)
	if err != nil {
		return err
	}
	g, err := openGate(ctx, cfg)
	if err != nil {
		return err
	}
	defer func() { _ = g.Close() }()
	db, err := postgres.Open(ctx, postgres.Config{URL: cfg.WorkerDatabaseURL, Conns: 2, Readers: 1})
	if err != nil {
		return fmt.Errorf("clinical database: %w", err)
	}
	defer db.Close()
	if err := postgres.CheckRole(ctx, db.Pool()); err != nil {
		return err
	}
	keys, err := keystore.Open(ctx, keystore.Config{URL: cfg.KeystoreDatabaseURL, Keeper: keeper})
	if err != nil {
		return fmt.Errorf("key store: %w", err)
	}
	defer keys.Close()
	w := jobs.New(jobs.Config{Gate: g, DB: db, Keys: keys, Log: log, Every: 10 * time.Minute})
	ready()
	return w.Run(ctx)
}
