/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/session.h"

#include <string.h>

int handle_why(struct request *r)
{
	struct pst_cmd_why *why = (struct pst_cmd_why *)r->arg;

	if (!r->session)
		return 0;
	why->out_code = r->session->why.out_code;
	why->out_cmd = r->session->why.out_cmd;
	memcpy(why->out_text, r->session->why.out_text, sizeof(why->out_text));
	return 0;
}
