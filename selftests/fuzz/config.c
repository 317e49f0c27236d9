/* SPDX-License-Identifier: Apache-2.0 */
/* A config.json is refused with a sentence, or is one that holds and comes back the same. */
#include "runtime/model/config.h"
#include "runtime/model/params.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct pst_config *cfg)
{
	struct pst_config again;
	char *text = pst_config_json(cfg);

	if (!text)
		abort();
	memset(&again, 0, sizeof(again));
	if (pst_config_parse(text, strlen(text), &again, NULL) || again.hidden != cfg->hidden ||
	    again.rms_eps != cfg->rms_eps || again.yarn.factor != cfg->yarn.factor)
		abort();
	free(text);
	if (!cfg->heads || cfg->experts % cfg->n_group || cfg->qk_rope % 2)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct pst_config cfg;
	struct pst_error err = {0};
	int rc = pst_config_parse((const char *)data, size, &cfg, &err);

	if ((rc != 0) != (err.code != 0) || rc != err.code)
		abort();
	if (rc && (!err.text[0] || !memchr(err.text, 0, sizeof(err.text))))
		abort();
	if (!rc)
		check(&cfg);
	return 0;
}
