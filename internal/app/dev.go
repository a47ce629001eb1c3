// SPDX-License-Identifier: Apache-2.0

package app

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/medirecord/medirecord/internal/children"
	"github.com/medirecord/medirecord/internal/envelope"
	"github.com/medirecord/medirecord/internal/med"
	"github.com/medirecord/medirecord/internal/pglocal"
)

// DevOptions are the flags of `medirecord dev`.
type DevOptions struct {
	Listen, Ops, Sidecar string
	Dir                  string
	Import               string // a path to import in place of the sample
	Sample               int    // how many sample patients
	Out                  io.Writer
	Log                  io.Writer // what the children log
}

// devAudience is `aud` of development tokens.
const devAudience = "medirecord"

// Names of the two databases of a development server.
const (
	devDatabase = "medirecord"
	devKeystore = "medirecord_keystore"
)

// dev is a development server while it runs.
type dev struct {
	opt   DevOptions
	files devFiles
	group children.Group
	info  DevInfo
	base  Config // what all parts share
	pg    *pglocal.Cluster
}

// Dev runs a whole MediRecord on this machine until the context ends: a
// PostgreSQL of its own, the sidecar, a witness, the worker and the API as child
// processes, and an issuer of tokens. Nothing it started outlives it, however
// it ends. A part that dies stays dead and is reported: what the others do
// without it is what there is to see.
func Dev(ctx context.Context, opt DevOptions) (err error) {
	dir, err := filepath.Abs(cmp.Or(opt.Dir, DefaultDataDir()))
	if err != nil {
		return err
	}
	d := &dev{opt: opt, files: devFiles{dir}}
	if err := d.checkAddresses(ctx); err != nil {
		return err
	}
	hold, err := d.files.hold()
	if err != nil {
		return err
	}
	defer func() { _ = hold.Close() }()
	if err := d.files.prepare(); err != nil {
		return err
	}
	_ = os.Remove(d.files.devJSON()) // it tells of a run that has ended
	defer func() {
		_ = os.Remove(d.files.devJSON())
		end, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, d.group.Stop(end))
	}()
	for _, step := range []func(context.Context) error{
		d.startPostgres, d.configure, d.migrate, d.startIssuer, d.startSidecar, d.startWitness, d.startWorker, d.seed, d.startAPI, d.publish,
	} {
		if err := step(ctx); err != nil {
			if ctx.Err() != nil {
				return nil // stopped while starting: nothing to complain of
			}
			return err
		}
	}
	d.greet()
	d.watch(ctx)
	d.say("stopping")
	return nil
}

func (d *dev) say(format string, a ...any) { _, _ = fmt.Fprintf(d.opt.Out, format+"\n", a...) }

// checkAddresses reports an address that is taken before anything is started.
func (d *dev) checkAddresses(ctx context.Context) error {
	for _, a := range []struct{ flag, addr string }{{"--listen", d.opt.Listen}, {"--ops", d.opt.Ops}, {"--sidecar", d.opt.Sidecar}} {
		host, _, err := net.SplitHostPort(a.addr)
		if err != nil {
			return fmt.Errorf("%s %s must be host:port, for instance 127.0.0.1:0", a.flag, a.addr)
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			return fmt.Errorf("%s %s is not on loopback: a development server is for this machine only", a.flag, a.addr)
		}
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.addr)
		if err != nil {
			return fmt.Errorf("%s %s cannot be used (%w); choose another, port 0 picks a free one", a.flag, a.addr, errors.Unwrap(err))
		}
		_ = ln.Close()
	}
	return nil
}

func (d *dev) startPostgres(ctx context.Context) (err error) {
	d.say("starting PostgreSQL in %s", d.files.postgres())
	d.pg, err = pglocal.Start(ctx, pglocal.Config{Dir: d.files.postgres(), Log: d.opt.Out})
	if err != nil {
		return err
	}
	d.group.Add(d.pg.Stop)
	return nil
}

// configure makes the configuration of the parts: each gets its own roles and
// no other's.
func (d *dev) configure(ctx context.Context) error {
	keeper, err := envelope.InitFileKeeper(d.files.keeper())
	if err != nil {
		return err
	}
	for _, k := range []string{envelope.RootKey, envelope.EpochKey(1)} {
		if err := keeper.CreateKey(ctx, k); err != nil && !errors.Is(err, envelope.ErrDestroyed) {
			return err
		}
	}
	url := func(role, db string) string {
		if err != nil {
			return ""
		}
		var pw string
		pw, err = d.files.password(role)
		return d.pg.URL("medirecord_"+role, pw, db)
	}
	d.base = Config{
		SidecarAddr: d.opt.Sidecar, FailMode: "closed", Env: "dev", KeyKeeper: "file://" + d.files.keeper(),
		DatabaseURL: url("app", devDatabase), TrailDatabaseURL: url("trail", devDatabase),
		KeystoreDatabaseURL: url("keys", devKeystore), WorkerDatabaseURL: url("worker", devDatabase),
		SealerDatabaseURL: url("sealer", devDatabase), AuditorDatabaseURL: url("auditor", devDatabase),
		MigrateDatabaseURL: url("migrator", devDatabase), MigrateKeystoreURL: url("migrator", devKeystore),
		BootstrapURL: d.pg.SuperuserURL("postgres"), ContextKeyFile: d.files.contextKey(),
	}
	return err
}

func (d *dev) migrate(ctx context.Context) error {
	d.say("migrating")
	return Migrate(ctx, &d.base, func(string) {})
}

// startIssuer serves the development issuer's key set.
func (d *dev) startIssuer(ctx context.Context) error {
	key, err := d.files.signingKey()
	if err != nil {
		return err
	}
	set, err := jwks(key)
	if err != nil {
		return err
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/jwks.json" {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Type", "application/jwk-set+json")
		_, _ = w.Write(set)
	})}
	go func() { _ = server.Serve(ln) }()
	d.group.Add(server.Shutdown)
	d.info.JWKS = "http://" + ln.Addr().String() + "/jwks.json"
	return nil
}

// start runs this program again as one of the parts and waits until it says
// that it is ready; it returns the addresses it said.
func (d *dev) start(ctx context.Context, part string, env map[string]string, args ...string) (*children.Child, []string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	ready := d.files.path("." + part + ".ready")
	_ = os.Remove(ready)
	env["MEDIRECORD_READY_FILE"] = ready
	env["CORESDK_FAIL_MODE"], env["CORESDK_ENV"] = "closed", "dev"
	env["MEDIRECORD_CONFIG"] = os.DevNull // what the supervisor says, and no file of the folder it was started in
	list := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME"), "TMPDIR=" + os.TempDir()}
	for k, v := range env {
		list = append(list, k+"="+v)
	}
	slices.Sort(list)
	child, err := d.group.Start(ctx, children.Spec{
		Name: part, Path: self, Args: append([]string{part}, args...), Env: list, Stdout: d.opt.Log, Stderr: d.opt.Log,
		DeathSignal: syscall.SIGKILL, Grace: 15 * time.Second, TimerSlack: slack,
	})
	if err != nil {
		return nil, nil, err
	}
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		select {
		case <-child.Done():
			return nil, nil, fmt.Errorf("the %s did not start; it says why above", part)
		case <-ctx.Done():
			return nil, nil, ctx.Err()
		case <-poll.C:
			if b, err := os.ReadFile(ready); err == nil { //nolint:gosec // our own folder
				return child, strings.Fields(string(b)), os.Remove(ready)
			}
		}
	}
}

// share is how many threads a part that works for the API runs at once: with all of
// the cores each, on a small machine, they wake each other more than they work.
func share() string { return cmp.Or(os.Getenv("GOMAXPROCS"), strconv.Itoa(max(1, runtime.NumCPU()/2))) }

// slack is how late a part may wake from a sleep. Under load the monitor of Go's
// runtime sleeps for 20 µs at a time; woken some thousand times a second in each
// part, it cost a seventh of all that a read costs on two cores. No timer of
// ours is finer than this.
const slack = time.Millisecond

func (d *dev) startSidecar(ctx context.Context) error {
	listen := d.opt.Sidecar
	if listen == "127.0.0.1:50051" && ipv6(ctx) {
		listen += ",[::1]:50051" // CoreSDK's clients differ in which they try
	}
	child, addrs, err := d.start(ctx, "sidecar", map[string]string{
		"MEDIRECORD_SIDECAR_LISTEN": listen, "MEDIRECORD_SIDECAR_STATE": d.files.state(),
		"MEDIRECORD_CONTEXT_KEY_FILE": d.files.contextKey(), "MEDIRECORD_SERVICE_TOKENS": d.files.services(),
		"MEDIRECORD_TOKEN_ISSUER": DevIssuer, "MEDIRECORD_TOKEN_AUDIENCE": devAudience, "CORESDK_JWKS_URI": d.info.JWKS,
		"CORESDK_LOG_LEVEL": os.Getenv("CORESDK_LOG_LEVEL"), "MEDIRECORD_POLICY": os.Getenv("MEDIRECORD_POLICY"),
		"MEDIRECORD_STRICT_READS": os.Getenv("MEDIRECORD_STRICT_READS"), "GOMAXPROCS": share(),
	})
	if err != nil {
		return err
	}
	d.base.SidecarAddr, d.info.Sidecar = addrs[0], addrs[0]
	d.info.PIDs = map[string]int{"postgres": d.pg.PID(), "sidecar": child.PID()}
	return nil
}

func ipv6(ctx context.Context) bool {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	_ = ln.Close()
	return true
}

// startWitness starts a witness of the trail's log, with a key and a memory of
// its own, and writes the policy that asks for its cosignature. On one machine
// it proves little; it shows how the parts go together.
func (d *dev) startWitness(ctx context.Context) error {
	logs, err := d.files.logKeys()
	if err != nil {
		return err
	}
	args := []string{
		"--listen", "127.0.0.1:0", "--state", d.files.path("witness", "state"), "--key", d.files.path("witness", "key"),
		"--new-key", "witness.dev.medirecord.example",
	}
	for _, vkey := range logs {
		args = append(args, "--log", vkey)
	}
	child, said, err := d.start(ctx, "witness", map[string]string{"CORESDK_LOG_LEVEL": os.Getenv("CORESDK_LOG_LEVEL")}, args...)
	if err != nil {
		return err
	}
	d.info.Witness = "http://" + said[0]
	d.info.PIDs["witness"] = child.PID()
	return writeFile(d.files.trailPolicy(), devPolicy(logs, said[1], d.info.Witness))
}

// devPolicy is a policy of one log and one witness that must cosign.
func devPolicy(logs []string, vkey, url string) []byte {
	var b strings.Builder
	b.WriteString("# Whose signatures make a checkpoint of this server's audit trail good (c2sp.org/tlog-policy).\n")
	for _, l := range logs {
		b.WriteString("log " + l + "\n")
	}
	b.WriteString("witness dev " + vkey + " " + url + "\nquorum dev\n")
	return []byte(b.String())
}

func (d *dev) startWorker(ctx context.Context) error {
	child, addrs, err := d.start(ctx, "worker", map[string]string{
		"CORESDK_SIDECAR_ADDR": d.base.SidecarAddr, "MEDIRECORD_WORKER_DATABASE_URL": d.base.WorkerDatabaseURL,
		"MEDIRECORD_KEYSTORE_DATABASE_URL": d.base.KeystoreDatabaseURL, "MEDIRECORD_KEY_KEEPER": d.base.KeyKeeper,
		"MEDIRECORD_SERVICE_TOKEN_FILE": d.files.service("worker"), "CORESDK_LOG_LEVEL": os.Getenv("CORESDK_LOG_LEVEL"),
		"MEDIRECORD_SEALER_DATABASE_URL": d.base.SealerDatabaseURL, "MEDIRECORD_TRAIL_ORIGIN": devTrailOrigin,
		"MEDIRECORD_TRAIL_KEY_FILE": d.files.path("trail.key"), "MEDIRECORD_SEALER_STATE": d.files.path("sealer.json"),
		"MEDIRECORD_TRAIL_POLICY": d.files.trailPolicy(), "MEDIRECORD_TRAIL_SINKS": "file://" + d.files.path("sink"),
		"MEDIRECORD_AUDITOR_DATABASE_URL": d.base.AuditorDatabaseURL,
		"MEDIRECORD_WORKER_OPS_LISTEN":    "127.0.0.1:0", "GOMAXPROCS": share(),
	})
	if err == nil {
		d.info.PIDs["worker"] = child.PID()
		d.info.WorkerOps = "http://" + addrs[0]
	}
	return err
}

func (d *dev) startAPI(ctx context.Context) error {
	child, addrs, err := d.start(ctx, "serve", map[string]string{
		"CORESDK_SIDECAR_ADDR": d.base.SidecarAddr, "CORESDK_JWKS_URI": d.info.JWKS,
		"MEDIRECORD_DATABASE_URL": d.base.DatabaseURL, "MEDIRECORD_TRAIL_DATABASE_URL": d.base.TrailDatabaseURL,
		"MEDIRECORD_KEYSTORE_DATABASE_URL": d.base.KeystoreDatabaseURL, "MEDIRECORD_KEY_KEEPER": d.base.KeyKeeper,
		"MEDIRECORD_KEY_CACHE": os.Getenv("MEDIRECORD_KEY_CACHE"), "CORESDK_LOG_LEVEL": os.Getenv("CORESDK_LOG_LEVEL"),
		"MEDIRECORD_PROFILE": os.Getenv("MEDIRECORD_PROFILE"),
		"MEDIRECORD_LISTEN":  d.opt.Listen, "MEDIRECORD_OPS_LISTEN": d.opt.Ops,
	})
	if err != nil {
		return err
	}
	d.info.API, d.info.Ops = "http://"+addrs[0], "http://"+addrs[1]
	d.info.PIDs["api"] = child.PID()
	return nil
}

// part returns the configuration for what this process itself does at the door.
func (d *dev) part(service string) *Config {
	c := d.base
	c.ServiceTokenFile, c.ContextKeyFile = d.files.service(service), ""
	return &c
}

// publish writes dev.json, and with it says that everything is ready.
func (d *dev) publish(ctx context.Context) error {
	db := &d.info.Database
	db.Socket, db.Port, db.Name = d.pg.Socket(), d.pg.Port(), devDatabase
	db.AppURL, db.TrailURL, db.KeystoreURL = d.base.DatabaseURL, d.base.TrailDatabaseURL, d.base.KeystoreDatabaseURL
	db.AuditorURL = d.base.AuditorDatabaseURL
	db.SuperuserURL = d.pg.SuperuserURL(devDatabase)
	d.info.Tokens = map[string]string{}
	for _, r := range med.Roles {
		t := DevToken{Roles: []string{string(r)}, Practice: d.info.Practices[0], MFA: true, TTL: 12 * time.Hour}
		if r == med.RolePatient && len(d.info.Patients) > 0 {
			t.Patient = d.info.Patients[0].ID
		}
		text, err := SignDevToken(d.files.dir, t)
		if err != nil {
			return err
		}
		d.info.Tokens[string(r)] = text
	}
	b, err := json.MarshalIndent(&d.info, "", "  ")
	if err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return writeFile(d.files.devJSON(), append(b, '\n'))
}

// watch waits for the end and reports each part that dies before it.
func (d *dev) watch(ctx context.Context) {
	parts := map[string]int{}
	for name, pid := range d.info.PIDs {
		parts[name] = pid
	}
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			for name, pid := range parts {
				if syscall.Kill(pid, 0) != nil {
					delete(parts, name)
					d.say("%s (pid %d) has ended: what needs it refuses from now on; Ctrl-C and start again to have it back", name, pid)
				}
			}
		}
	}
}

// greet prints what to do next.
func (d *dev) greet() {
	d.say("\nMediRecord %s is ready.", Version)
	d.say("  API        %s   (contract: /openapi.json, page: /docs)", d.info.API)
	d.say("  operations %s   (/healthz /readyz /metrics)", d.info.Ops)
	d.say("  sidecar    %s", d.info.Sidecar)
	d.say("  witness    %s   (policy: %s)", d.info.Witness, d.files.trailPolicy())
	d.say("  everything else: %s", d.files.devJSON())
	if len(d.info.Patients) == 0 {
		d.say("\nNo patients yet: medirecord import --data %s --practice %s FILE|DIR…", d.files.dir, d.info.Practices[0])
		return
	}
	url := d.info.API + "/patients/" + d.info.Patients[0].ID
	for _, c := range []struct{ what, role, more string }{
		{"A clinician of the practice sees the record", "clinician", ""},
		{"The patient sees SSN and birth date masked", "patient", ""},
		{"Break-glass with a reason opens the record, and pages an officer", "break_glass", ` \` + "\n    -H 'X-Break-Glass-Reason: Patient in ER, consent unreachable'"},
		{"Break-glass without a reason does not", "break_glass", ""},
	} {
		d.say("\n# %s\ncurl -s %s \\\n    -H 'Authorization: Bearer %s'%s", c.what, url, d.info.Tokens[c.role], c.more)
	}
	d.say("\n# An admin with MFA reads who looked\ncurl -s %s/audit \\\n    -H 'Authorization: Bearer %s'", url, d.info.Tokens["admin"])
	d.say("\nThe tokens live 12 hours. Others: medirecord token --data %s --role nurse --practice %s", d.files.dir, d.info.Practices[0])
	d.say("Ctrl-C stops everything.")
}
