"""What a server refuses: OpenML's error codes and the sentence of each."""

from __future__ import annotations

from metamed.errors import MetamedError

_SENTENCES = """
100 Function not valid
101 Function not yet ported or implemented
102 No authentication (Please provide API key for all requests other than HTTP GET)
103 Authentication failed
106 The intended action requires admin rights
107 Database connection error. Usually due to high server load. Please wait for N seconds and try again.
111 Unknown dataset
113 Could not find data file record
130 Problem with file uploading
131 Problem validating uploaded description file
133 Currently, only arff datasets are supported for upload
135 Please provide description xml
136 Failed to register URL
140 Both dataset file and dataset url provided. Please provide only one
141 Neither dataset file or dataset url are provided
143 Suggested target feature not legal
145 Error parsing dataset ARFF file
160 Error in file uploading
151 Unknown task
161 Please provide description xml
163 Problem validating uploaded description file
167 Illegal files uploaded
171 flow already exists
181 Unknown flow
201 Please provide run xml
202 Could not validate run xml by xsd
204 Unknown task
205 Unknown flow
206 Invalid file type uploaded
207 File upload failed
208 Associated dataset does not have quality (default evaluation engine): NumberOfInstances
209 Error parsing uploaded file.
211 Dataset not in databse
213 Parameter in run xml unknown
216 Error processing output data: illegal combination of evaluation measure attributes (repeat, fold, sample)
217 Error processing output data: unknown evaluation measure
236 Run not found
241 Unknown task type
271 Unknown dataset
281 Unknown setup
322 flow does not exist
323 flow is not owned by you
324 flow is in use by other content (runs). Can not be deleted
328 flow is in use by other content (it is a subflow). Can not be deleted
330 Mandatory fields not present.
352 Dataset does not exist
353 Dataset is not owned by you
354 Dataset is in use by other content. Can not be deleted
361 Unknown dataset
362 No qualities found
370 Illegal filter specified
371 Input not safe
372 No results
373 Can not specify an offset without a limit
392 Run does not exist
393 Run is not owned by you
402 Setup does not exist
404 Setup is in use by other content (runs, schedules, etc). Can not be deleted
452 Task does not exist
453 Task is not owned by you
454 Task is executed in some runs. Delete these first
471 Please give entity_id {data_id, flow_id, run_id} and tag.
472 Entity not found.
473 Entity already tagged by this tag.
475 Tag not found.
476 Tag is not owned by you
480 Illegal filter specified
481 Filter input not according to constraints
482 No results
483 Can not specify an offset without a limit
500 No results
501 Illegal filter operation
502 Illegal filter value
503 Can not specify an offset without a limit
511 Input not safe
512 No results
513 Too many results
514 Illegal filter specified
515 Can not specify offset without limit
516 Requested result limit too high.
517 Problem with the study filter. The study should exists, be run-based and non-legacy
540 Please provide at least task, flow or setup, uploader or run, to filter results.
541 Input not safe
542 No results
543 Too many results
544 Illegal filter specified
545 Can not specify offset without limit
546 Requested result limit too high.
547 Per fold can only be set to value "true" or "false".
549 If set, sort should be set to either "asc" or "desc"
555 Problem with the study filter. The study should exists, be run-based and non-legacy
561 Problem with uploaded trace file.
571 Run not found.
572 No successful trace associated with this run.
581 Problem with uploading the description file.
582 Could not validate run xml by xsd.
584 Unknown flow.
586 Parameter in run xml unknown.
592 Study does not exist
594 Study not owned by this user
595 Can only delete studies based on runs or studies in preparation
596 Illegal filter.
597 Illegal filter input.
598 Can only set an offset if limit is also specified.
599 No studies according to the specified criteria.
601 Study does not exist.
611 Description file not present
613 Problem validating uploaded description file
614 Task already exists.
616 Task contains illegal inputs.
617 Task contains duplicate inputs.
618 Task does not contain all required inputs.
621 Task data type not in the right format.
622 Input value does not match allowed values in foreign column.
623 Tasks can only be created upon active datasets.
671 Illegal filter.
672 Illegal filter input.
673 Result set too big. Please use one of the filters or the limit option.
674 No results, please check the filter.
675 Can not specify offset without limit
676 Requested result limit too high.
691 Illegal status
692 Dataset does not exist
693 Dataset is not owned by you
694 Illegal status transition
731 estimationprocedure_id not valid
901 No such user
1002 No tags available
1031 No description file uploaded
1032 Description file does not correspond to XSD schema
1034 can only link entities of the type main_entity_type
1035 Can only register benchmark suite if main entity type is run
1036 Referred benchmark suite not found
1037 Referred benchmark suite should have main entity type task
1038 Study alias not unique
1041 Could not find study
1043 Please provide post field: ids
1044 Please ensure that post field ids contains a list of natural numbers
1045 Problem attaching entities. Please ensure to only attach entities that exist
1046 Problem detaching entities.
1047 Can only attach or detach if status is in preparation.
1051 Not legal status to update to
1052 Could not find study
1053 Study not owned by you
1055 Please provide atleast one field among description, creator, contributor, collection_date, language, citation, original_data_url or paper_url to edit
1105 Unknown dataset or feature
1106 Problem with the ontology
"""  # noqa: E501
SENTENCES = {int(line.split(" ", 1)[0]): line.split(" ", 1)[1] for line in _SENTENCES.strip().splitlines()}


class Refused(MetamedError):
    """An answer 412 with one of OpenML's codes; detail: the thing, the value found, the way out."""

    def __init__(self, code: int, detail: str = ""):
        self.code, self.detail = code, detail
        super().__init__(f"{code} {SENTENCES[code]}: {detail}")

    @property
    def document(self) -> dict:
        detail = self.detail[:500] or None
        return {"error": {"code": self.code, "message": SENTENCES[self.code], "additional_information": detail}}
