// SPDX-License-Identifier: Apache-2.0

package main

import (
	"log/slog"
	"net"
	"strings"

	"github.com/medirecord/medirecord/internal/app"
)

type witnessCmd struct {
	Listen  string   `default:"127.0.0.1:8085" help:"Where to listen; on loopback only without TLS."`
	State   string   `required:"" type:"path" help:"Folder of what it has cosigned. Never restore it from a backup."`
	Key     string   `required:"" type:"path" help:"File of its signing keys, one a line, 0600."`
	NewKey  string   `placeholder:"NAME" help:"Make the key, under this name, and the state, unless the key is there."`
	Log     []string `sep:"none" placeholder:"VKEY" help:"Verifier key of a log that it watches. Several of one origin are keys of one log."`
	LogFile string   `type:"path" help:"More of them, one a line."`
	TLSCert string   `name:"tls-cert" type:"path" help:"Certificate, PEM."`
	TLSKey  string   `name:"tls-key" type:"path" help:"Its key, PEM."`
}

func (witnessCmd) Help() string {
	return `Runs a witness of transparency logs (c2sp.org/tlog-witness) until SIGTERM. It
cosigns a log's checkpoint if that extends the last one it cosigned, and has it
on disk before it answers. A log that goes back or shows two histories gets no
cosignature, and what it signed is kept in the state's folder, under evidence.

It is worth what its distance is worth: run it on another machine, under another
account, by other people than those who run the database. It takes no database
URL and no key of a log. When its state is lost the key must not be used again:
make a new witness, and change the line in everybody's policy.

Its verifier key, for that line, is in the log when it starts.

Example:
  medirecord witness --state /var/lib/witness --key /etc/witness/key \
    --new-key witness.example/w1 --log "$(cat audit-log.vkey)"
  curl -s 'http://127.0.0.1:8085/checkpoint?origin=medirecord.example/audit/1'`
}

func (c *witnessCmd) Run(e *env) error {
	cfg, log, flush, err := e.part()
	if err != nil {
		return err
	}
	defer flush()
	return app.Witness(e.ctx, cfg, app.WitnessOptions{
		Listen: c.Listen, State: c.State, Key: c.Key, NewKey: c.NewKey, Logs: c.Log, LogFile: c.LogFile, TLSCert: c.TLSCert, TLSKey: c.TLSKey,
	}, log, func(addr net.Addr, vkeys []string) {
		log.InfoContext(e.ctx, "witness serving", slog.String("address", addr.String()), slog.String("verifier_keys", strings.Join(vkeys, " ")))
		e.ready(append([]string{addr.String()}, vkeys...)...)
	})
}
