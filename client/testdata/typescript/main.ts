// SPDX-License-Identifier: Apache-2.0

// What a product would do with the client: read a patient, walk a list page by
// page, and tell one refusal from another. It compiles only while the contract
// says what it uses; the test runs it against a real system.
import createClient from "openapi-fetch";
import type { components, paths } from "./contract.js";

declare const process: { argv: string[] }; // of Node

type Problem = components["schemas"]["Problem"];

const [server, token, officer, patient] = process.argv.slice(2) as [string, string, string, string];
const clientOf = (bearer: string) => createClient<paths>({ baseUrl: server, headers: { Authorization: `Bearer ${bearer}` } });

const { data, error } = await clientOf(token).GET("/patients/{id}", { params: { path: { id: patient } } });
if (error) throw new Error(`${error.status} ${error.code}`);
console.log(`name ${data.name}`);

let cursor: string | undefined;
let entries = 0;
do {
  const page = await clientOf(officer).GET("/api/v1/audit/logs", { params: { query: { limit: 2, ...(cursor ? { cursor } : {}) } } });
  if (page.error) throw new Error(page.error.code);
  entries += page.data.data.length;
  cursor = page.data.page?.next;
} while (cursor && entries < 5);
console.log(`entries ${entries}`);

const refused = await clientOf(officer).GET("/patients/{id}", { params: { path: { id: patient } } });
const problem: Problem | undefined = refused.error;
console.log(`refused ${problem?.status} ${problem?.hipaa_category}`);
