// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"log/slog"
	"net"
	"os"
	"runtime/pprof"
	"strings"

	"github.com/medirecord/medirecord/internal/app"
)

type (
	serveCmd   struct{}
	sidecarCmd struct{}
	workerCmd  struct{}
	migrateCmd struct{}
	versionCmd struct{}
)

func (serveCmd) Help() string {
	return `Runs the API until SIGTERM. It refuses to start when a part is away or unsafe,
and says which. ` + "`medirecord config check`" + ` lists the settings.

Example:
  CORESDK_SIDECAR_ADDR=unix:///run/medirecord/sidecar.sock CORESDK_FAIL_MODE=closed \
  MEDIRECORD_DATABASE_URL=… MEDIRECORD_TRAIL_DATABASE_URL=… \
  MEDIRECORD_KEYSTORE_DATABASE_URL=… MEDIRECORD_KEY_KEEPER=… medirecord serve`
}

func (serveCmd) Run(e *env) error {
	cfg, log, flush, err := e.part()
	if err != nil {
		return err
	}
	defer flush()
	defer e.profile(cfg)()
	return app.Serve(e.ctx, cfg, log, func(api, ops net.Addr) {
		log.InfoContext(e.ctx, "serving", slog.String("api", api.String()), slog.String("ops", ops.String()))
		e.ready(api.String(), ops.String())
	})
}

func (sidecarCmd) Help() string {
	return `Runs the sidecar until SIGTERM. It takes no database URL: who signs contexts
holds no database credentials.

Example:
  CORESDK_FAIL_MODE=closed CORESDK_JWKS_URI=https://idp.example/jwks.json \
  MEDIRECORD_TOKEN_ISSUER=https://idp.example MEDIRECORD_TOKEN_AUDIENCE=medirecord \
  MEDIRECORD_CONTEXT_KEY_FILE=/etc/medirecord/context.key \
  MEDIRECORD_SIDECAR_STATE=/var/lib/medirecord/sidecar.jsonl \
  MEDIRECORD_SIDECAR_LISTEN=unix:///run/medirecord/sidecar.sock medirecord sidecar`
}

func (sidecarCmd) Run(e *env) error {
	cfg, log, flush, err := e.part()
	if err != nil {
		return err
	}
	defer flush()
	return app.Sidecar(e.ctx, cfg, log, func(addrs []net.Addr) {
		var list []string
		for _, a := range addrs {
			list = append(list, a.String())
		}
		log.InfoContext(e.ctx, "sidecar serving", slog.String("addresses", strings.Join(list, " ")))
		e.ready(list...)
	})
}

func (workerCmd) Help() string {
	return `Runs unattended work until SIGTERM: the audit trail's partitions ahead of time,
the sweeping of keys that no patient came for, and the sealing of the trail into
a signed log. Several may run: one of them seals.`
}

func (workerCmd) Run(e *env) error {
	cfg, log, flush, err := e.part()
	if err != nil {
		return err
	}
	defer flush()
	return app.Worker(e.ctx, cfg, log, func(ops string) {
		log.InfoContext(e.ctx, "worker running")
		e.ready(ops)
	})
}

func (migrateCmd) Help() string {
	return `Runs the migrations that the two databases lack, installs the verifying key of
MEDIRECORD_CONTEXT_KEY_FILE, and makes the audit trail's partitions. The first
time, MEDIRECORD_BOOTSTRAP_URL names a role that may create roles and databases.
Running it again changes nothing.

Example:
  MEDIRECORD_BOOTSTRAP_URL=postgres://postgres@/postgres?host=/run/postgresql \
  MEDIRECORD_MIGRATE_DATABASE_URL=postgres://medirecord_migrator:…@/medirecord?host=/run/postgresql \
  MEDIRECORD_MIGRATE_KEYSTORE_URL=postgres://medirecord_migrator:…@/medirecord_keystore?host=/run/postgresql \
  MEDIRECORD_CONTEXT_KEY_FILE=/etc/medirecord/context.key medirecord migrate`
}

func (migrateCmd) Run(e *env) error {
	cfg, err := e.config("", "")
	if err != nil {
		return err
	}
	n := 0
	if err := app.Migrate(e.ctx, cfg, func(step string) {
		n++
		fmt.Fprintf(e.out, "done: %s\n", step)
	}); err != nil {
		return err
	}
	if n == 0 {
		fmt.Fprintln(e.out, "nothing to do: both databases are at this program's schema")
	}
	return nil
}

func (versionCmd) Run(e *env) error {
	_, err := fmt.Fprintln(e.out, "medirecord "+app.Version)
	return err
}

// part returns what a part of the system runs with.
func (e *env) part() (*app.Config, *slog.Logger, func(), error) {
	cfg, err := e.config("", "")
	if err != nil {
		return nil, nil, nil, err
	}
	log, flush := app.NewLogger(e.err, cfg.LogLevel)
	return cfg, log, flush, nil
}

// profile writes a CPU profile of a development server to the file that
// MEDIRECORD_PROFILE names. Elsewhere there is none to be had.
func (e *env) profile(cfg *app.Config) (stop func()) {
	for _, kv := range e.environ {
		path, ok := strings.CutPrefix(kv, "MEDIRECORD_PROFILE=")
		if !ok || path == "" || !cfg.Dev() {
			continue
		}
		f, err := os.Create(path)
		if err != nil || pprof.StartCPUProfile(f) != nil {
			break
		}
		return func() {
			pprof.StopCPUProfile()
			_ = f.Close()
		}
	}
	return func() {}
}

// ready tells the supervisor, if there is one, that this part is.
func (e *env) ready(addrs ...string) {
	for _, kv := range e.environ {
		if path, ok := strings.CutPrefix(kv, "MEDIRECORD_READY_FILE="); ok {
			tmp := path + ".new"
			if os.WriteFile(tmp, []byte(strings.Join(addrs, " ")), 0o600) == nil {
				_ = os.Rename(tmp, path)
			}
		}
	}
}
