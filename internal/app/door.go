// SPDX-License-Identifier: Apache-2.0

package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/medirecord/medirecord/coresdk"
	"github.com/medirecord/medirecord/internal/chart"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/gate"
	"github.com/medirecord/medirecord/internal/keystore"
	"github.com/medirecord/medirecord/internal/postgres"
	"github.com/medirecord/medirecord/internal/trail"
)

// Door is the door and what it stands on, opened and checked: safe to serve
// from.
type Door struct {
	Chart *chart.Service
	Gate  *gate.Gate
	DB    *postgres.DB
	Keys  *keystore.Store
	Trail *trail.Trail
}

// OpenDoor opens everything the door stands on and refuses to go on when a
// part is missing or unsafe (rules.md section 3): it is all or nothing.
func OpenDoor(ctx context.Context, cfg *Config, log *slog.Logger) (_ *Door, err error) {
	if err := cfg.checkFailMode(); err != nil {
		return nil, err
	}
	if err := cfg.need("serving", "CORESDK_SIDECAR_ADDR", "MEDIRECORD_DATABASE_URL", "MEDIRECORD_TRAIL_DATABASE_URL",
		"MEDIRECORD_KEYSTORE_DATABASE_URL", "MEDIRECORD_KEY_KEEPER"); err != nil {
		return nil, err
	}
	if cfg.ContextKeyFile != "" {
		return nil, errors.New("MEDIRECORD_CONTEXT_KEY_FILE is set: who holds database credentials must not hold the key that signs contexts; leave it to the sidecar and to `medirecord migrate`")
	}
	for name, url := range map[string]string{
		"MEDIRECORD_DATABASE_URL": cfg.DatabaseURL, "MEDIRECORD_TRAIL_DATABASE_URL": cfg.TrailDatabaseURL,
		"MEDIRECORD_KEYSTORE_DATABASE_URL": cfg.KeystoreDatabaseURL,
	} {
		if err := postgres.CheckTransport(name, url, cfg.Dev()); err != nil {
			return nil, err
		}
	}
	keeper, err := openKeeper(cfg)
	if err != nil {
		return nil, err
	}
	d := &Door{}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.Gate, err = openGate(ctx, cfg); err != nil {
		return nil, err
	}
	if d.DB, err = postgres.Open(ctx, postgres.Config{URL: cfg.DatabaseURL}); err != nil {
		return nil, fmt.Errorf("clinical database: %w", err)
	}
	if d.Trail, err = trail.Open(ctx, trail.Config{URL: cfg.TrailDatabaseURL, Log: log}); err != nil {
		return nil, fmt.Errorf("audit trail: %w", err)
	}
	if d.Keys, err = keystore.Open(ctx, keystore.Config{URL: cfg.KeystoreDatabaseURL, Keeper: keeper, PatientTTL: cfg.KeyCache, PracticeTTL: cfg.KeyCache}); err != nil {
		return nil, fmt.Errorf("key store: %w", err)
	}
	if err = d.check(ctx); err != nil {
		return nil, err
	}
	d.Chart, err = chart.New(chart.Config{Gate: d.Gate, DB: d.DB, Keys: d.Keys, Trail: d.Trail, Log: log, Now: time.Now})
	return d, err
}

func openKeeper(cfg *Config) (envelope.Keeper, error) {
	keeper, err := envelope.OpenKeeper(cfg.KeyKeeper)
	if err != nil {
		return nil, err
	}
	if envelope.IsDev(keeper) && !cfg.Dev() {
		return nil, errors.New("MEDIRECORD_KEY_KEEPER names a development keeper, whose keys lie in files: outside development use a secrets manager")
	}
	return keeper, nil
}

func openGate(ctx context.Context, cfg *Config) (*gate.Gate, error) {
	token := ""
	if cfg.ServiceTokenFile != "" {
		b, err := readSecretFile(cfg.ServiceTokenFile)
		if err != nil {
			return nil, fmt.Errorf("MEDIRECORD_SERVICE_TOKEN_FILE: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	g, err := gate.Open(ctx, coresdk.Config{
		Addr: cfg.SidecarAddr, TenantID: cfg.TenantID, ServiceName: "medirecord", ServiceToken: coresdk.Secret(token),
		TLSCert: cfg.TLSCert, TLSKey: cfg.TLSKey, TLSCA: cfg.TLSCA, Dev: cfg.Dev(),
	}, time.Now)
	if err != nil {
		return nil, fmt.Errorf("sidecar unreachable at start-up (fail-closed): %w", err)
	}
	return g, nil
}

// check asks the databases whether they are safe to serve from.
func (d *Door) check(ctx context.Context) error {
	clinical, err := postgres.Clinical()
	if err != nil {
		return err
	}
	keys, err := keystore.Migrations()
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { return postgres.CheckRole(ctx, d.DB.Pool()) },
		func() error { return postgres.CheckRole(ctx, d.Trail.Pool()) },
		func() error { return postgres.CheckRole(ctx, d.Keys.Pool()) },
		func() error { return postgres.CheckServer(ctx, d.DB.Pool()) },
		func() error { return postgres.CheckServer(ctx, d.Trail.Pool()) },
		func() error { return postgres.CheckServer(ctx, d.Keys.Pool()) },
		func() error { return postgres.CheckSchema(ctx, d.DB.Pool(), clinical) },
		func() error { return postgres.CheckSchema(ctx, d.Keys.Pool(), keys) },
		func() error { return postgres.CheckForced(ctx, d.DB.Pool()) },
		func() error { return postgres.CheckForced(ctx, d.Keys.Pool()) },
		func() error { return postgres.CheckPartitions(ctx, d.DB.Pool()) },
		func() error { return postgres.CheckEpoch(ctx, d.DB.Pool()) },
		func() error { return d.Trail.Healthy(ctx) },
		func() error { return d.checkClock(ctx) },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

// Skews of the clocks of API and database: red, and closed.
const (
	skewRed    = 2 * time.Second
	skewClosed = 30 * time.Second
)

func (d *Door) checkClock(ctx context.Context) error {
	skew, err := d.DB.ClockSkew(ctx, time.Now)
	if err != nil {
		return err
	}
	if skew > skewClosed {
		return fmt.Errorf("the clocks of this machine and the database differ by more than %s: entries would be dated wrong; set them by NTP", skewClosed)
	}
	return nil
}

// Close closes what was opened, the trail last: its entries are written.
func (d *Door) Close() {
	if d.Gate != nil {
		_ = d.Gate.Close()
	}
	if d.DB != nil {
		d.DB.Close()
	}
	if d.Keys != nil {
		d.Keys.Close()
	}
	if d.Trail != nil {
		d.Trail.Close()
	}
}
