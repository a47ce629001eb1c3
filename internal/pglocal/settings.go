// SPDX-License-Identifier: Apache-2.0

package pglocal

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
)

const (
	superuser = "postgres"
	// port is a part of the socket's name only: nothing listens on it.
	port = 5432
)

// defaults are the settings that a caller may change, for a test that wants to
// see a server refused for instance.
func defaults() map[string]string {
	return map[string]string{ //nolint:gosec // no credentials: password_encryption is a method
		// Durable: an acknowledged audit entry survives the machine.
		"fsync":              "on",
		"full_page_writes":   "on",
		"synchronous_commit": "on",
		// Modest: a laptop and a test machine run several.
		"shared_buffers":            "128MB",
		"max_connections":           "60",
		"max_prepared_transactions": "0",
		"jit":                       "off", // short queries only; compiling them costs more than it saves
		"track_activities":          "on",
		"password_encryption":       "scram-sha-256",
		"timezone":                  "UTC",
		"log_timezone":              "UTC",
		// Silent: the log goes to people who may not see PHI. The message of an
		// ERROR quotes the value that was wrong, so none is logged ("log" stands
		// between error and fatal); the client gets it all the same.
		"log_min_messages":                  "log",
		"log_statement":                     "none",
		"log_min_error_statement":           "panic",
		"log_parameter_max_length":          "0",
		"log_parameter_max_length_on_error": "0",
		"log_min_duration_statement":        "-1",
		"log_error_verbosity":               "terse",
		"log_line_prefix":                   "%m [%p] %q%u@%d ",
	}
}

// arguments returns postgres's command line. Settings on it win over the files
// in the data folder and over ALTER SYSTEM. It refuses settings that would
// break the package's promises.
func arguments(f folder, cfg Config) ([]string, error) {
	name := cfg.Name
	if name == "" {
		name = "medirecord"
	}
	all := defaults()
	fixed := map[string]string{
		"listen_addresses":        "",
		"unix_socket_directories": quoteListItem(f.socketDir()),
		"unix_socket_permissions": "0700",
		"port":                    strconv.Itoa(port),
		"hba_file":                f.hba(),
		"cluster_name":            name,
		// The log is the file on standard error, opened by us.
		"logging_collector": "off",
		"log_destination":   "stderr",
	}
	for key, value := range cfg.Settings {
		if _, ok := fixed[key]; ok {
			return nil, fmt.Errorf("the setting %s is not for the caller to change", key)
		}
		all[key] = value
	}
	maps.Copy(all, fixed)
	args := []string{"-D", f.data()}
	for _, key := range slices.Sorted(maps.Keys(all)) {
		args = append(args, "-c", key+"="+all[key])
	}
	return args, nil
}

// quoteListItem keeps a comma or a blank in a folder's name from making two
// folders of it.
func quoteListItem(s string) string { return `"` + strings.ReplaceAll(s, `"`, `""`) + `"` }
