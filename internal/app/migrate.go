// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/postgres"
)

// Migrate brings both databases to this program's schema, installs the
// verifying key of the context key file, and makes the trail's partitions. With
// a bootstrap URL it first makes the roles and the databases, with the
// passwords of the configured URLs. Running it again changes nothing.
func Migrate(ctx context.Context, cfg *Config, said func(string)) error {
	if err := cfg.need("migrating", "MEDIRECORD_MIGRATE_DATABASE_URL", "MEDIRECORD_MIGRATE_KEYSTORE_URL", "MEDIRECORD_CONTEXT_KEY_FILE"); err != nil {
		return err
	}
	keys, err := readContextKeys(cfg.ContextKeyFile)
	if err != nil {
		return err
	}
	for name, url := range map[string]string{
		"MEDIRECORD_MIGRATE_DATABASE_URL": cfg.MigrateDatabaseURL, "MEDIRECORD_MIGRATE_KEYSTORE_URL": cfg.MigrateKeystoreURL, "MEDIRECORD_BOOTSTRAP_URL": cfg.BootstrapURL,
	} {
		if url == "" {
			continue
		}
		if err := postgres.CheckTransport(name, url, cfg.Dev()); err != nil {
			return err
		}
	}
	if cfg.BootstrapURL != "" {
		if err := bootstrap(ctx, cfg, said); err != nil {
			return err
		}
	}
	clinical, err := postgres.Clinical()
	if err != nil {
		return err
	}
	store, err := keystore.Migrations()
	if err != nil {
		return err
	}
	for _, db := range []struct {
		name, url string
		steps     []postgres.Step
	}{{"clinical database", cfg.MigrateDatabaseURL, clinical}, {"key store", cfg.MigrateKeystoreURL, store}} {
		err := connected(ctx, db.url, func(conn *pgx.Conn) error {
			if err := postgres.Migrate(ctx, conn, db.steps, func(step string) { said(db.name + ": " + step) }); err != nil {
				return err
			}
			for _, k := range keys {
				installed, err := postgres.InstallContextKey(ctx, conn, k.KID, k.Key)
				if err != nil {
					return fmt.Errorf("installing the context key: %w", err)
				}
				if installed {
					said(db.name + ": context key " + k.KID)
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", db.name, err)
		}
	}
	return connected(ctx, cfg.MigrateDatabaseURL, func(conn *pgx.Conn) error {
		var made int
		if err := conn.QueryRow(ctx, `select audit.make_partitions(6)`).Scan(&made); err != nil {
			return fmt.Errorf("making the trail's partitions: %w", err)
		}
		if made > 0 {
			said(fmt.Sprintf("clinical database: %d partitions of the trail", made))
		}
		return nil
	})
}

// bootstrap makes roles and databases, and sets the roles' passwords to those
// of the configured URLs.
func bootstrap(ctx context.Context, cfg *Config, said func(string)) error {
	names := make([]string, 0, 2)
	for _, u := range []string{cfg.MigrateDatabaseURL, cfg.MigrateKeystoreURL} {
		c, err := pgx.ParseConfig(u)
		if err != nil {
			return fmt.Errorf("the migration URLs cannot be read: %w", errBadURL)
		}
		names = append(names, c.Database)
	}
	return connected(ctx, cfg.BootstrapURL, func(conn *pgx.Conn) error {
		if err := postgres.Bootstrap(ctx, conn, names...); err != nil {
			return err
		}
		for _, u := range []string{
			cfg.MigrateDatabaseURL, cfg.DatabaseURL, cfg.TrailDatabaseURL, cfg.KeystoreDatabaseURL, cfg.WorkerDatabaseURL, cfg.SealerDatabaseURL, cfg.AuditorDatabaseURL, cfg.RetentionDatabaseURL,
		} {
			if u == "" {
				continue
			}
			c, err := pgx.ParseConfig(u)
			if err != nil {
				return errBadURL
			}
			if c.Password == "" {
				continue
			}
			if err := postgres.SetPassword(ctx, conn, c.User, c.Password); err != nil {
				return err
			}
		}
		said("roles and databases")
		return nil
	})
}

func connected(ctx context.Context, url string, work func(*pgx.Conn) error) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return postgres.Unavailable(err)
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	return work(conn)
}
