// SPDX-License-Identifier: Apache-2.0

// Package archtest is the house plan as a test: which package stands on which
// floor, who may import whom, and where each library lives. ARCHITECTURE.md
// tells the same in words. It reads every Go file of the module, whatever its
// build tags, and fails by name. Test files may import what they like.
package archtest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
)

// The plan, from the cellar up. A package imports only floors below its own.
var floors = []struct{ name, packages string }{
	{"words", `internal/med`},
	{"crafts", `client proto/coresdk/v1 proto/medirecord/v1 policy coresdk internal/audit internal/children internal/cosign internal/envelope
		internal/fhir internal/outbound internal/pglocal internal/policy internal/siem internal/token internal/worm`},
	{"sqlc output", `internal/postgres/pgdb internal/keystore/keydb`},
	{"stores", `internal/gate internal/keystore internal/postgres internal/trail coresdk/ginsdk`},
	{"door", `internal/auth internal/chart internal/watch`},
	{"rooms", `internal/httpapi internal/intake internal/jobs internal/sidecar internal/stream internal/witness`},
	{"roof", `internal/app`},
	{"street", `cmd/medirecord examples/ginservice`},
	{"beside", `internal/medtest internal/contract coresdk/coresdktest bench bench/load`}, // tests and measurements: nobody imports them, they import what they like
}

// Sideways, each with its reason. One that nobody needs any more fails too.
var sideways = map[string]string{
	"coresdk → proto/coresdk/v1":            "the wire it speaks",
	"internal/policy → policy":              "the built-in policy file",
	"internal/cosign → internal/outbound":   "witnesses are asked through the one client, with its limits",
	"internal/siem → internal/audit":        "the entry that it says in other words",
	"internal/worm → internal/outbound":     "a bucket is reached under the same limits as everything else",
	"internal/pglocal → internal/children":  "a server of our own must not outlive us",
	"internal/trail → internal/postgres":    "one way to open a pool and to tell an outage from a refusal",
	"internal/keystore → internal/postgres": "the same, and the first migration: its own database checks contexts too",
}

// Doors inside the house: nobody else imports these, whatever their floor.
var only = map[string]string{
	"internal/postgres": `internal/chart internal/keystore internal/trail internal/watch internal/app
		internal/jobs`, // the one room: its work on partitions and orphan keys opens no patient data, and belongs into chart
	"internal/postgres/pgdb":  `internal/postgres internal/chart internal/watch`,
	"internal/keystore":       `internal/chart internal/app internal/jobs`,
	"internal/keystore/keydb": `internal/keystore`,
	"internal/trail":          `internal/auth internal/chart internal/watch internal/app internal/stream`,
	"internal/gate":           `internal/auth internal/chart internal/watch internal/app internal/jobs`,
	"internal/envelope":       `internal/chart internal/keystore internal/app`, // app opens the keeper
	// What serves patients links decisions, not the engine. app starts the
	// sidecar's watcher of the policy file, cmd has `policy test`.
	"internal/policy": `internal/sidecar internal/app cmd/medirecord`,
	"internal/token":  `internal/sidecar internal/app`,
	"coresdk":         `coresdk/ginsdk internal/gate internal/app examples/ginservice`,
}

// Each library, and what of the standard library leaves the process, has a home.
var homes = map[string]string{
	"github.com/alecthomas/kong":          `cmd/medirecord`,
	"github.com/danielgtaylor/huma":       `internal/httpapi`,
	"github.com/gin-gonic/gin":            `internal/httpapi coresdk/ginsdk examples/ginservice`,
	"github.com/go-jose/go-jose":          `internal/token internal/app`, // app: the development issuer
	"github.com/hashicorp/golang-lru":     `internal/keystore`,
	"github.com/jackc/pgx":                `internal/postgres internal/postgres/pgdb internal/keystore internal/keystore/keydb internal/trail internal/chart internal/watch internal/jobs internal/app`,
	"github.com/klauspost/compress":       `internal/audit internal/envelope internal/fhir`,
	"github.com/oapi-codegen/runtime":     `client`,
	"github.com/open-policy-agent/opa":    `internal/policy`,
	"github.com/prometheus/client_golang": `internal/httpapi internal/app`,
	"github.com/swaggest/swgui":           `internal/httpapi`,
	"github.com/transparency-dev/formats": `internal/audit internal/cosign internal/witness`,
	"github.com/minio/minio-go":           `internal/worm`,
	"go.yaml.in/yaml":                     `internal/policy internal/app`,
	"golang.org/x/mod":                    `internal/audit internal/cosign internal/trail internal/witness internal/app`, // app: the log's keys
	"go.opentelemetry.io/proto/slim/otlp": `internal/siem`,
	"golang.org/x/sync":                   `internal/keystore`,
	"golang.org/x/term":                   `internal/intake internal/app`,
	"golang.org/x/text":                   `internal/envelope`,
	"google.golang.org/grpc":              `internal/sidecar internal/gate coresdk proto/coresdk/v1 proto/medirecord/v1`,
	"google.golang.org/protobuf":          `internal/gate internal/sidecar internal/siem proto/coresdk/v1 proto/medirecord/v1`,
	"os": `coresdk internal/app internal/children internal/envelope internal/intake internal/pglocal internal/policy
		internal/sidecar internal/trail cmd/medirecord examples/ginservice internal/witness internal/worm`, // trail: the sealer's memory, outside the database; so no file is opened by med, audit, fhir, token, chart, ...
	"net":           `coresdk internal/app internal/httpapi internal/stream internal/outbound internal/postgres internal/sidecar cmd/medirecord`,
	"net/http":      `client internal/httpapi internal/outbound internal/app internal/stream coresdk/ginsdk examples/ginservice internal/witness`,
	"os/exec":       `internal/children internal/pglocal`,
	"unsafe":        `proto/coresdk/v1 proto/medirecord/v1`,
	"math/rand/v2":  `internal/app internal/intake`, // invented people; pauses between attempts
	"html/template": `internal/httpapi`,             // pages to print: escaped by where a text stands
	// Nowhere.
	"testing": ``, "database/sql": ``, "plugin": ``, "math/rand": ``, "crypto/md5": ``, "crypto/sha1": ``,
}

func TestPlan(t *testing.T) {
	t.Parallel()
	floor := map[string]int{}
	for i, f := range floors {
		for _, p := range strings.Fields(f.packages) {
			floor[p] = i
		}
	}
	used := map[string]bool{} // permissions that somebody needed
	for _, f := range files(t) {
		own, known := floor[f.pkg]
		switch {
		case f.test || known && floors[own].name == "beside":
			continue
		case !known:
			t.Errorf("%s has no floor: add it to the plan, or move its code to where it belongs", f.pkg)
			continue
		}
		for _, path := range f.imports {
			to, ours := strings.CutPrefix(path, module+"/")
			why := ""
			if ours {
				used[f.pkg+" → "+to] = true
				why = house(f.pkg, own, to, floor)
			} else if home, name, ok := homeOf(path); ok {
				used[f.pkg+" → "+name] = true
				why = unless(home, f.pkg)
			}
			if why != "" && sideways[f.pkg+" → "+to] == "" {
				t.Errorf("%s: %s imports %s: %s", f.path, f.pkg, to, why)
			}
		}
	}
	for _, p := range permissions() {
		if !used[p] {
			t.Errorf("%s: nobody needs that permission any more, take it out of the plan", p)
		}
	}
}

// house says why a package may not import another of ours, or "".
func house(pkg string, own int, to string, floor map[string]int) string {
	there, known := floor[to]
	switch {
	case !known:
		return "that has no floor"
	case floors[there].name == "beside":
		return "that is for tests and measurements"
	case strings.HasPrefix(to, "internal/") && !strings.HasPrefix(pkg, "internal/") && !strings.HasPrefix(pkg, "cmd/"):
		return "what others may use stands on nothing internal"
	case there >= own:
		return fmt.Sprintf("%s may not import %s, only floors below", floors[own].name, floors[there].name)
	case only[to] != "":
		return unless(only[to], pkg)
	}
	return ""
}

func unless(list, pkg string) string {
	if names := strings.Fields(list); !slices.Contains(names, pkg) {
		return fmt.Sprintf("only these may: %v", names)
	}
	return ""
}

// homeOf returns who may use what the path names, and its name in the plan. A
// library without a home may be used by nobody: give it one.
func homeOf(path string) (home, name string, ok bool) {
	for n, h := range homes {
		if path == n || strings.Contains(n, ".") && strings.HasPrefix(path, n+"/") {
			return h, n, true
		}
	}
	return "", path, strings.Contains(path, ".")
}

// permissions lists all that the plan grants by name.
func permissions() (out []string) {
	for edge := range sideways {
		out = append(out, edge)
	}
	for _, list := range []map[string]string{only, homes} {
		for what, who := range list {
			for _, p := range strings.Fields(who) {
				out = append(out, p+" → "+what)
			}
		}
	}
	slices.Sort(out)
	return out
}
