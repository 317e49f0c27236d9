/* SPDX-License-Identifier: Apache-2.0 */
#include "runtime/train/trainer.h"

#include "rdma/fail.h"
#include "runtime/io/safetensors.h"
#include "runtime/store/ckptdir.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

static int write_config(const struct pst_trainer *t, const char *dir, struct pst_error *err)
{
	char *text = pst_config_json(&t->config), path[PATH_MAX];
	int rc;

	if (!text)
		return pst_fail(err, -ENOMEM, "no memory for config.json");
	if (snprintf(path, sizeof(path), "%s/config.json", dir) >= (int)sizeof(path))
		rc = pst_fail(err, -ENAMETOOLONG, "%s: path too long", dir);
	else
		rc = pst_file_replace(path, text, strlen(text), err);
	free(text);
	return rc;
}

int pst_trainer_save(struct pst_trainer *t, char *path, size_t len, struct pst_error *err)
{
	char tmp[PATH_MAX], final[PATH_MAX];
	uint64_t bytes;
	int rc;

	if (!t->out[0])
		return pst_fail(err, -EINVAL, "no directory for checkpoints was named (out)");
	rc = pst_ckptdir_begin(t->out, t->state.step, tmp, err);
	if (rc < 0)
		return rc;
	rc = pst_client_save(t->client, tmp, &bytes, err);
	/* it was made just now: who does not find it looks elsewhere */
	if (rc == -ENOENT)
		pst_trainer_add(err, "; servers on other hosts must see the folder of checkpoints "
				     "under the same path");
	if (!rc)
		rc = pst_state_write(tmp, &t->state, err);
	if (!rc)
		rc = write_config(t, tmp, err);
	if (!rc)
		rc = pst_ckptdir_commit(t->out, t->state.step, tmp, t->o.keep, final, err);
	if (rc < 0) {
		pst_ckptdir_abort(tmp);
		return rc;
	}
	t->saved = true;
	t->traffic.saved += bytes;
	if (path)
		snprintf(path, len, "%s", final);
	return 0;
}
