/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/children/child.h"

#include "daemon/keep/keep.h"
#include "daemon/log.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static void name_of(const struct child *ch, char out[64])
{
	snprintf(out, 64, "child-%s-%u", ch->role == PST_LEASH_WORKER ? "worker" : "server",
		 ch->id);
}

static json_t *pack(const struct child *ch)
{
	const struct child_counters *b = &ch->base;

	return json_pack("{si si ss ss ss ss sb sI sI sI si si si sI sb sb "
			 "s[IIIIIII]}",
			 "role", (int)ch->role, "id", (int)ch->id, "name", ch->name, "device_name",
			 ch->device_name, "asked", ch->asked, "url", ch->url, "listened",
			 ch->listened, "device", (json_int_t)ch->device, "threads",
			 (json_int_t)ch->threads, "restarts", (json_int_t)ch->restarts, "node",
			 (int)ch->node, "pid", (int)ch->pid, "goal", (int)ch->goal, "order",
			 (json_int_t)ch->last_order, "stopped", ch->stopped, "leaving", ch->leaving,
			 "counters", (json_int_t)b->rows, (json_int_t)b->calls,
			 (json_int_t)b->busy_ns, (json_int_t)b->pulled, (json_int_t)b->moved,
			 (json_int_t)b->copied, (json_int_t)b->read_bytes);
}

void child_keep(struct child *ch)
{
	struct pst_error err = {0};
	json_t *about = pack(ch);
	char name[64];
	int rc = -ENOMEM;

	name_of(ch, name);
	if (about && !json_object_set_new(about, "born", json_integer((json_int_t)ch->born)))
		rc = keep_put(ch->set->d->keep, name,
			      child_runs(ch) ? ch->leash.fd : ch->set->blank, about, &err);
	json_decref(about);
	if (rc < 0)
		log_line(LOG_WARNING, NULL, "%s will not outlive this daemon: %s", child_label(ch),
			 *err.text ? err.text : strerror(-rc));
}

void child_unkeep(struct child *ch)
{
	char name[64];

	name_of(ch, name);
	keep_drop(ch->set->d->keep, name);
}

static bool take_text(const json_t *about, const char *key, char *out, size_t len)
{
	const char *text = json_string_value(json_object_get(about, key));

	return text && (size_t)snprintf(out, len, "%s", text) < len;
}

static bool take_number(const json_t *about, const char *key, json_int_t min, json_int_t max,
			json_int_t *out)
{
	const json_t *value = json_object_get(about, key);

	*out = json_integer_value(value);
	return json_is_integer(value) && *out >= min && *out <= max;
}

static bool take_texts(struct child *ch, const json_t *about)
{
	return take_text(about, "name", ch->name, sizeof(ch->name)) &&
	       take_text(about, "device_name", ch->device_name, sizeof(ch->device_name)) &&
	       take_text(about, "asked", ch->asked, sizeof(ch->asked)) &&
	       take_text(about, "url", ch->url, sizeof(ch->url));
}

static bool take_numbers(struct child *ch, const json_t *about, pid_t *pid)
{
	json_int_t device, threads, node, restarts, process, born, goal, order;

	if (!take_number(about, "device", 0, UINT32_MAX, &device) ||
	    !take_number(about, "threads", 0, UINT32_MAX, &threads) ||
	    !take_number(about, "restarts", 0, UINT32_MAX, &restarts) ||
	    !take_number(about, "node", PST_ANY, INT32_MAX, &node) ||
	    !take_number(about, "pid", 0, INT32_MAX, &process) ||
	    !take_number(about, "born", 0, INT64_MAX, &born) ||
	    !take_number(about, "order", INT64_MIN, INT64_MAX, &order) ||
	    !take_number(about, "goal", GOAL_RUN, GOAL_STOP, &goal))
		return false;
	ch->device = (uint32_t)device;
	ch->threads = (uint32_t)threads;
	ch->restarts = (uint32_t)restarts;
	ch->node = (int32_t)node;
	ch->born = (uint64_t)born;
	ch->last_order = (uint64_t)order;
	ch->goal = (enum goal)goal;
	ch->listened = json_is_true(json_object_get(about, "listened"));
	ch->stopped = json_is_true(json_object_get(about, "stopped"));
	ch->leaving = json_is_true(json_object_get(about, "leaving"));
	*pid = (pid_t)process;
	return true;
}

static void take_counters(struct child_counters *b, const json_t *list)
{
	uint64_t *to[] = {&b->rows,  &b->calls,	 &b->busy_ns,	&b->pulled,
			  &b->moved, &b->copied, &b->read_bytes};

	for (size_t i = 0; i < sizeof(to) / sizeof(*to); i++)
		*to[i] = (uint64_t)json_integer_value(json_array_get(list, i));
}

struct child *child_unpack(struct children *c, const json_t *about, pid_t *pid)
{
	json_int_t role, id;
	struct child *ch;

	if (!take_number(about, "role", PST_LEASH_WORKER, PST_LEASH_SERVER, &role) ||
	    !take_number(about, "id", 1, UINT32_MAX, &id) ||
	    child_find(c, (uint32_t)role, (uint32_t)id))
		return NULL;
	ch = child_new(c, (uint32_t)role, (uint32_t)id);
	if (!ch)
		return NULL;
	if (!take_texts(ch, about) || !take_numbers(ch, about, pid)) {
		child_free(ch);
		return NULL;
	}
	take_counters(&ch->base, json_object_get(about, "counters"));
	return ch;
}
