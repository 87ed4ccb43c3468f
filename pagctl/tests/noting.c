/*
 * A PAM module for tests. It notes each call, with its arguments, in the PAM environment, and answers what its arguments
 * say: the first one is for pam_authenticate, pam_acct_mgmt and pam_open_session, the second one for pam_setcred and
 * pam_close_session.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *pam_getenv(void *handle, const char *name);
int pam_putenv(void *handle, const char *line);

static int note(void *handle, int argc, const char **argv, int which)
{
	static char line[1 << 20];
	const char *before = pam_getenv(handle, "NOTED");

	snprintf(line, sizeof(line), "NOTED=%s\x1e", before ? before : "");
	for (int i = 0; i < argc; i++) {
		strcat(line, argv[i]);
		strcat(line, "\x1f");
	}
	pam_putenv(handle, line);
	return argc > which ? atoi(argv[which]) : 0;
}

#define CALL(name, which) \
	int name(void *handle, int flags, int argc, const char **argv) \
	{ \
		(void)flags; \
		return note(handle, argc, argv, which); \
	}

CALL(pam_sm_authenticate, 0)
CALL(pam_sm_setcred, 1)
CALL(pam_sm_acct_mgmt, 0)
CALL(pam_sm_open_session, 0)
CALL(pam_sm_close_session, 1)
